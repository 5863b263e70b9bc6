"""The oracle: a plain time loop with the paper's curves, differentiated by autograd. It shares no code with `stbp`."""

import math

import torch
from torch import Tensor

from stbp.names import Surrogate

PAPERS: tuple[Surrogate, ...] = ("rectangle", "polynomial", "sigmoid", "gaussian")


def curve(v: Tensor, name: str, width: float) -> Tensor:
    """h1..h4 as the paper prints them, each with its own parameter a."""
    if name == "rectangle":
        a = width
        return (v.abs() < a / 2).to(v.dtype) / a
    if name == "polynomial":
        a = 4 / width**2
        inside = 2 / math.sqrt(a) - v.abs() > 0
        return torch.where(inside, math.sqrt(a) / 2 - a / 4 * v.abs(), torch.zeros_like(v))
    if name == "sigmoid":
        a = width / 4
        return torch.exp(-v / a) / (1 + torch.exp(-v / a)) ** 2 / a
    a = width**2 / (2 * math.pi)
    return torch.exp(-(v**2) / (2 * a)) / math.sqrt(2 * math.pi * a)


def integral(v: Tensor, name: str, width: float) -> Tensor:
    """The integral of h from minus infinity: a smooth step from 0 to 1."""
    if name == "rectangle":
        return (v / width + 0.5).clamp(0, 1)
    if name == "polynomial":
        s = (v / width).clamp(-1, 1)
        return 0.5 + s - s * s.abs() / 2
    if name == "sigmoid":
        return torch.sigmoid(4 * v / width)
    return (1 + torch.erf(math.sqrt(math.pi) * v / width)) / 2


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, threshold, name, width, smooth):
        ctx.save_for_backward(u)
        ctx.rest = threshold, name, width
        return integral(u - threshold, name, width) if smooth else (u >= threshold).to(u.dtype)

    @staticmethod
    def backward(ctx, *grads):
        threshold, name, width = ctx.rest
        return grads[0] * curve(ctx.saved_tensors[0] - threshold, name, width), None, None, None, None


def fire(u: Tensor, threshold: float, name: str, width: float, smooth: bool = False) -> Tensor:
    """The step, or with `smooth` the curve's integral; its derivative is taken to be the curve in both cases."""
    out = _Fire.apply(u, threshold, name, width, smooth)
    assert isinstance(out, Tensor)
    return out


def lif(
    x: Tensor,
    decay: float,
    threshold: float,
    name: str,
    width: float,
    gate: str,
    state: tuple[Tensor, Tensor] | None = None,
    smooth: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes and potentials of all steps, and the last spikes."""
    u, o = state if state is not None else (torch.zeros_like(x[0]), torch.zeros_like(x[0]))
    us, os = [], []
    for x_t in x:
        if gate == "paper":
            kept = u * decay * torch.exp(-o / decay)
        elif gate == "linear":
            kept = u * decay * (1 - o)
        elif gate == "detached":
            kept = u * decay * (1 - o.detach())
        else:
            kept = (u * decay * (1 - o)).detach()
        u = kept + x_t
        o = fire(u, threshold, name, width, smooth)
        us.append(u)
        os.append(o)
    return torch.stack(os), torch.stack(us), os[-1]
