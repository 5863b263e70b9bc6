"""The curves that stand in for the derivative of the spike (Dirac's delta) in the backward pass: h1..h4 of the paper.

All have area 1 and peak 1/width; the paper's own parameters are `stbp.experiments.registry.width_from_paper`.

To add one: its name in `stbp.names.Surrogate`, its function and its row in `TABLE`
here, and for the kernels its function and its name in `curves.h` (CPU) and in `gpu.py` (Triton); without these the
PyTorch reference computes it, and says so.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


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


class Curve(NamedTuple):
    """One curve and what is known of it."""

    # h(v) of v = u - threshold and the width.
    function: Callable[[Tensor, float], Tensor]
    # Half the length of the interval around the threshold outside which the curve is under 1 % of its peak, in units of
    # the width; of the rectangle and the triangle where they reach zero.
    reach: float


TABLE: dict[str, Curve] = {
    "rectangle": Curve(rectangle, 0.5),
    "polynomial": Curve(polynomial, 1.0),
    "sigmoid": Curve(sigmoid, math.log(400) / 4),
    "gaussian": Curve(gaussian, math.sqrt(math.log(100) / math.pi)),
}


def slope(u: Float[Tensor, "*shape"], threshold: float, surrogate: str, width: float) -> Float[Tensor, "*shape"]:
    """Return h(u - threshold), which the backward pass uses for do/du.

    Args:
        u: membrane potential, any shape, in units of the threshold.
        surrogate: name of the curve.
        width: width of the rectangle of the same height, in units of u; the peak is 1/width.
    """
    return TABLE[surrogate].function(u - threshold, width)


def check(surrogate: str, width: float) -> None:
    """Raise ValueError unless the name is that of a curve and the width is positive and finite."""
    if surrogate not in TABLE:
        raise ValueError(f"surrogate must be one of {', '.join(TABLE)}; got {surrogate!r}")
    if not 0 < width < math.inf:
        raise ValueError(f"width must be a positive number (the peak of the surrogate is 1/width); got {width}")
