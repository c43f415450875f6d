"""Systems that can be evaluated: retrieval, composing, captioners and the engine, by name."""
