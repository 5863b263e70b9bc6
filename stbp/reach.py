"""How far back in time a gradient reaches."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from stbp import nn
from stbp.ops.spikes import Spikes


def gradient_reach(net: nn.Network, x: Tensor | Spikes, y: Int64[Tensor, " B"]) -> Float[Tensor, " T"]:
    """Norm of the gradient of the last step's error with respect to the first neurons' current 0..T-1 steps earlier.

    The error is the paper's for one step, 1/2 sum_i (y_i - o_i)^2, mean over samples, with y one-hot; the norm is over
    samples and neurons. With gate `spatial` nothing but k = 0 has a gradient.

    Args:
        net: what `nn.build` made.
        x: input `[T, B, ...]`.
        y: class indices.
    """
    first, *others = nn.Flatten()(x) if net.flatten_input else x, *net
    assert isinstance(others[0], nn.Linear | nn.Conv2d)
    with torch.no_grad():
        current = others[0](first)
    passed = current.requires_grad_()
    for module in others[1:]:
        passed = module(passed)
    o = passed[-1]
    target = torch.zeros_like(o).scatter_(1, y[:, None], 1.0)
    error = ((target - o) ** 2).sum() / (2 * len(y))
    (gradient,) = torch.autograd.grad(error, current)
    return gradient.flatten(1).norm(dim=1).flip(0)
