"""Average pooling over a window: k x k areas, stride k; rows and columns that fill no area are left out."""

import torch
from torch import Tensor


def avg_pool2d(x: Tensor, k: int) -> Tensor:
    """`[T, B, C, H, W]` to `[T, B, C, H // k, W // k]`."""
    return torch.nn.functional.avg_pool2d(x.flatten(0, 1).contiguous(), k).unflatten(0, x.shape[:2])


def avg_pool2d_backward(grad: Tensor, height: int, width: int, k: int) -> Tensor:
    """Each input of an area gets its output's gradient divided by k^2; left-out rows and columns get zero."""
    spread = (grad.contiguous() / k**2).repeat_interleave(k, -2).repeat_interleave(k, -1)
    return torch.nn.functional.pad(spread, (0, width - spread.shape[-1], 0, height - spread.shape[-2]))
