"""Words that are chosen from: surrogates, gates, initialisations; and the nearest of known words."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Literal

# The curves h1, h2, h3, h4 that stand in for the derivative of a spike.
Surrogate = Literal["rectangle", "polynomial", "sigmoid", "gaussian"]
# Forget gates: decay * (1 - o), the paper's exponential, reset not differentiated, no gradient through time (SDBP).
GateName = Literal["linear", "paper", "detached", "spatial"]
# Initial weights: scaled to threshold, decay and input, the paper's unit rows, PyTorch's default range.
Init = Literal["balanced", "paper", "torch"]


def hint(word: str, known: Iterable[str], before: str = "; ") -> str:
    """Return `; did you mean NAME?` with the known name that is nearest to a word; empty where none is near."""
    nearest = get_close_matches(word, list(known), n=1)
    return f"{before}did you mean {nearest[0]}?" if nearest else ""
