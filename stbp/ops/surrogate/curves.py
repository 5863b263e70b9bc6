"""The paper's four curves h1..h4 that stand in for the derivative of the spike (Dirac's delta) in the backward pass.

All four have area 1 and peak 1/width. In the paper's own parameters: a1 = width, a2 = 4/width^2, a3 = width/4,
a4 = width^2/(2 pi): `stbp.experiments.registry.width_from_paper`.
"""

import math
from collections.abc import Callable
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from stbp.names import Surrogate


def rectangle(v: Tensor, width: float) -> Tensor:
    """h1: 1/width inside |v| < width/2, zero at the edge and outside."""
    return (v.abs() < width / 2).to(v.dtype) / width


def polynomial(v: Tensor, width: float) -> Tensor:
    """h2: a triangle that reaches zero at |v| = width."""
    return (1 / width - v.abs() / width**2).clamp(min=0)


def sigmoid(v: Tensor, width: float) -> Tensor:
    """h3: the derivative of a logistic function of scale width/4; written so that exp cannot overflow."""
    z = torch.exp(-v.abs() * (4 / width))
    return (4 / width) * z / (1 + z) ** 2


def gaussian(v: Tensor, width: float) -> Tensor:
    """h4: a normal density of variance width^2/(2 pi)."""
    return torch.exp(-math.pi * (v / width) ** 2) / width


CURVES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "rectangle": rectangle,
    "polynomial": polynomial,
    "sigmoid": sigmoid,
    "gaussian": gaussian,
}

# Half the length of the interval around the threshold outside which the curve is zero or, where its support is
# unbounded, under 1 % of its peak; in units of the width.
REACH = {
    "rectangle": 0.5,
    "polynomial": 1.0,
    "sigmoid": math.log(400) / 4,
    "gaussian": math.sqrt(math.log(100) / math.pi),
}


def slope(u: Float[Tensor, "*shape"], threshold: float, surrogate: str, width: float) -> Float[Tensor, "*shape"]:
    """h(u - threshold): what the backward pass uses for do/du.

    Args:
        u: membrane potential, any shape, in units of the threshold.
        surrogate: `rectangle`, `polynomial`, `sigmoid` or `gaussian` (h1..h4).
        width: width of the rectangle of the same height, in units of u; the peak is 1/width.
    """
    return CURVES[surrogate](u - threshold, width)


def check(surrogate: str, width: float) -> None:
    """Raise ValueError unless the name is one of the four and the width is positive and finite."""
    if surrogate not in get_args(Surrogate):
        raise ValueError(f"surrogate must be one of {', '.join(get_args(Surrogate))}; got {surrogate!r}")
    if not 0 < width < math.inf:
        raise ValueError(f"width must be a positive number (the peak of the surrogate is 1/width); got {width}")
