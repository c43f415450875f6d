"""How the weights of `starter` are made: data, split, features, objective, training loop, evaluation."""
