"""The training loop: batches, accumulated gradients, resumable state."""
