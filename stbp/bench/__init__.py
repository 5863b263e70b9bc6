"""Time and memory of training, ours and the peers'."""
