"""`avg_pool2d`: average pooling over a window, by torch's own operator and its derivatives."""

import torch
from jaxtyping import Float
from torch import Tensor

from stbp.ops import dispatch
from stbp.ops.spikes import Spikes


def avg_pool2d(x: Float[Tensor, "T B C H W"] | Spikes, k: int) -> Float[Tensor, "T B C H2 W2"]:
    """Return the average of k x k areas with stride k, in every step; rows and columns that fill no area are left out.

    Args:
        x: spikes or currents, `[T, B, C, H, W]`, as a tensor or packed.
        k: side of the area in pixels.

    Raises:
        ValueError: x is not `[T, B, C, H, W]`, or smaller than one area.
    """
    if len(x.shape) != 5 or not 1 <= k <= min(x.shape[3:]):
        raise ValueError(f"x must be [T, B, C, H, W] with H and W at least k = {k}; got {list(x.shape)}")
    x = x.dense() if isinstance(x, Spikes) else x
    if dispatch.watched():
        dispatch.note("avg_pool2d", "forward", "torch", reason="pooling by itself has no kernel")
    return torch.nn.functional.avg_pool2d(x.flatten(0, 1).contiguous(), k).unflatten(0, x.shape[:2])
