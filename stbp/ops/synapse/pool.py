"""`avg_pool2d`: argument checks, registration with torch's dispatcher, autograd."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from stbp.ops.spikes import Spikes
from stbp.ops.synapse import pool_reference


@torch.library.custom_op("stbp::avg_pool2d", mutates_args=())
def _avg_pool2d(x: Tensor, k: int) -> Tensor:
    return pool_reference.avg_pool2d(x, k)


@torch.library.custom_op("stbp::avg_pool2d_backward", mutates_args=())
def _avg_pool2d_backward(grad: Tensor, height: int, width: int, k: int) -> Tensor:
    return pool_reference.avg_pool2d_backward(grad, height, width, k)


@_avg_pool2d.register_fake
def _(x, k):
    return x.new_empty((*x.shape[:3], x.shape[3] // k, x.shape[4] // k))


@_avg_pool2d_backward.register_fake
def _(grad, height, width, k):
    return grad.new_empty((*grad.shape[:3], height, width))


def _setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, ctx.k = inputs
    ctx.size = x.shape[3:]


def _backward(ctx: Any, grad: Tensor) -> tuple:
    return _avg_pool2d_backward(grad, *ctx.size, ctx.k), None


_avg_pool2d.register_autograd(_backward, setup_context=_setup)


def avg_pool2d(x: Float[Tensor, "T B C H W"] | Spikes, k: int) -> Float[Tensor, "T B C H2 W2"]:
    """Average pooling of k x k areas with stride k, on every step; no neurons of its own.

    Args:
        x: spikes or currents, `[T, B, C, H, W]`, as a tensor or packed.
        k: side of the area in pixels; rows and columns that fill no area are left out.

    Raises:
        ValueError: x is not `[T, B, C, H, W]`, or smaller than one area.
    """
    if len(x.shape) != 5 or not 1 <= k <= min(x.shape[3:]):
        raise ValueError(f"x must be [T, B, C, H, W] with H and W at least k = {k}; got {list(x.shape)}")
    return _avg_pool2d(x.dense() if isinstance(x, Spikes) else x, k)
