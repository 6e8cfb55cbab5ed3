"""Training of the generative policy: histories, gradient descent, checkpoints."""
