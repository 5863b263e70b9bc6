"""Words that are chosen from: surrogates, gates, initialisations. Nothing is imported for them."""

from typing import Literal

# The curves h1, h2, h3, h4 that stand in for the derivative of a spike.
Surrogate = Literal["rectangle", "polynomial", "sigmoid", "gaussian"]
# Forget gates: decay * (1 - o), the paper's exponential, reset not differentiated, no gradient through time (SDBP).
GateName = Literal["linear", "paper", "detached", "spatial"]
# Initial weights: scaled to threshold, decay and input, the paper's unit rows, PyTorch's default range.
Init = Literal["balanced", "paper", "torch"]
