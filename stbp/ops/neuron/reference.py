"""The iterative LIF neuron, forward and backward: the definition of right for every kernel.

The derivation, with the paper's equation numbers, is in `stbp/ops/README.md`.
"""

import math
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from stbp.names import GateName
from stbp.ops.surrogate.curves import slope


class Gate(NamedTuple):
    """The forget gate f(o) (eq. 6) and its slope f'(o), each at o = 0 and o = 1: all that o in {0, 1} can ask of f."""

    keep0: float
    keep1: float
    slope0: float
    slope1: float

    def keep(self, o: Tensor) -> Tensor:
        """f(o)"""
        return torch.where(o > 0, o.new_full((), self.keep1), o.new_full((), self.keep0))

    def slope(self, o: Tensor) -> Tensor:
        """f'(o)"""
        return torch.where(o > 0, o.new_full((), self.slope1), o.new_full((), self.slope0))


def gates(name: GateName, decay: float) -> tuple[Gate, Gate]:
    """The gate that the forward pass reads and the one that the backward pass is given; `decay` is the paper's tau.

    They differ for `detached`, whose backward pass takes the reset for a constant (f' = 0), and for `spatial`, the
    paper's SDBP ablation, whose backward pass drops every term that leads from step t + 1 to step t (f = f' = 0).
    """
    linear = Gate(decay, 0.0, -decay, -decay)  # f(o) = tau (1 - o): what the paper's f is for small tau
    if name == "linear":
        return linear, linear
    if name == "detached":
        return linear, Gate(decay, 0.0, 0.0, 0.0)
    if name == "spatial":
        return linear, Gate(0.0, 0.0, 0.0, 0.0)
    if name != "paper":
        raise ValueError(f"gate must be one of {', '.join(get_args(GateName))}; got {name!r}")
    # eq. 6: f(o) = tau exp(-o/tau), f'(o) = -exp(-o/tau). At tau = 0 f is 0 for every o, and we take the slope of that,
    # 0, though f'(0) is -1 for every tau > 0: nothing is kept forward, so nothing is sent back.
    after_spike = math.exp(-1 / decay) if decay > 0 else 0.0
    paper = Gate(decay, decay * after_spike, -1.0 if decay > 0 else 0.0, -after_spike)
    return paper, paper


def lif(x: Tensor, u: Tensor, o: Tensor, gate: Gate, threshold: float) -> tuple[Tensor, Tensor]:
    """Potentials and spikes of every step (eq. 4, 5, 7).

    Args:
        x: input current, synapse output plus bias, `[T, B, ...]`.
        u, o: membrane potential and spikes before the first step, `[B, ...]`; zero at the start of a window.
        gate: f(o); only its keeps are read.
        threshold: V_th.

    Returns:
        u and o of all steps, `[T, B, ...]` each.
    """
    us, os = [], []
    for x_t in x:
        u = u * gate.keep(o) + x_t  # eq. 4: u^t = u^{t-1} f(o^{t-1}) + x^t
        o = (u >= threshold).to(x.dtype)  # eq. 5, 7: o^t = g(u^t)
        us.append(u)
        os.append(o)
    return torch.stack(us), torch.stack(os)


def lif_backward(
    grad_o: Tensor,
    grad_u: Tensor,
    us: Tensor,
    u: Tensor,
    o: Tensor,
    gate: Gate,
    threshold: float,
    surrogate: str,
    width: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of `lif`, with the surrogate in place of the spike's derivative (README, "Backward").

    It is exact where `gate` is the one of the forward pass, not the recursion as the paper prints it (`printed.py`).

    Args:
        grad_o: dL/do^t that reaches the spikes from outside the layer, `[T, B, ...]`: in the last layer the loss's
            part, in the others sum_j eps_j w_ji of the layer above; in step T also what a later window sends to o^T.
        grad_u: dL/du^T that reaches the last potential from a later window, `[B, ...]`; zero if there is none.
        us: the potentials that `lif` returned, `[T, B, ...]`; the spikes are worked out from them again.
        u, o: the state that `lif` was given.
        gate: f and f' of the backward pass, the second of `gates`.
        threshold: V_th, as `lif` was given.
        surrogate, width: the curve h for do/du, and its width in units of u.

    Returns:
        dL/dx^t (equal to eps^t = dL/du^t), `[T, B, ...]`, and dL/du, dL/do of the state given, `[B, ...]`.
    """
    grad_x = us.new_empty(us.shape)
    from_u, from_o = grad_u, torch.zeros_like(grad_u)  # what step t + 1 sends back to u^t and to o^t
    for t in reversed(range(len(us))):
        delta = grad_o[t] + from_o  # delta^t = dL/do^t
        eps = delta * slope(us[t], threshold, surrogate, width) + from_u  # eps^t = dL/du^t
        grad_x[t] = eps
        u_before, o_before = (us[t - 1], (us[t - 1] >= threshold).to(us.dtype)) if t > 0 else (u, o)
        from_u = eps * gate.keep(o_before)  # du^t/du^{t-1} = f(o^{t-1})
        from_o = eps * u_before * gate.slope(o_before)  # du^t/do^{t-1} = u^{t-1} f'(o^{t-1}); printed with delta h
    return grad_x, from_u.contiguous(), from_o.contiguous()
