"""The gradient check that the page prints: our backward pass against autograd of a plain loop in float64."""

from functools import cache
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from stbp import nn
from stbp.loss import rate_mse
from stbp.names import GateName, Surrogate
from stbp.ops.neuron.reference import gates
from stbp.ops.surrogate.curves import TABLE
from stbp.paper.printed import lif_backward_printed

NETWORK, T, B, DECAY, THRESHOLD, WIDTH = "20-16-10", 12, 8, 0.5, 0.5, 1.0
GRID = 64  # weights and biases are multiples of 1/64, so that float32 and float64 decide every spike alike


class Check(NamedTuple):
    """Largest relative error over all parameters, in float64 and in float32, and in how many spikes each differs."""

    surrogate: str
    gate: str
    float64: float
    float32: float
    spikes: int


class Departure(NamedTuple):
    """Departure of a recursion from the exact gradient of the first layer's weights: relative distance and cosine."""

    decay: float
    recursion: str
    distance: float
    cosine: float


@cache  # once for a process, however many pages it makes
def checks() -> tuple[Check, ...]:
    """Every surrogate with every gate, on the same weights and spikes; computed by this process."""
    return tuple(check(surrogate, gate) for surrogate in get_args(Surrogate) for gate in get_args(GateName))


def check(surrogate: Surrogate, gate: GateName) -> Check:
    """One surrogate with one gate; the network, its input and labels are drawn from a fixed seed."""
    net, x, y = _case(surrogate, gate, DECAY)
    exact, truth = _plain(net, x, y, surrogate, gate, DECAY)
    found, differing = [], 0
    for dtype in (torch.float64, torch.float32):
        net.to(dtype)
        o = net(x.to(dtype))
        gradients = torch.autograd.grad(rate_mse(o, y), list(net.parameters()))
        differing += int((o.detach().double() != exact).sum())
        found.append(max(_distance(g.double(), t) for g, t in zip(gradients, truth, strict=True)))
    return Check(surrogate, gate, found[0], found[1], differing)


@cache
def departures() -> tuple[Departure, ...]:
    """The recursion as the paper prints it, and SDBP, beside the exact gradient, at three decays; computed here too."""
    rows = []
    for decay in (0.1, 0.2, 0.5):
        net, x, y = _case("sigmoid", "paper", decay)
        truth = _plain(net, x, y, "sigmoid", "paper", decay)[1][0]
        spatial = _plain(net, x, y, "sigmoid", "spatial", decay)[1][0]
        for name, gradient in (("as printed", _printed(net, x, y, decay)), ("spatial only (SDBP)", spatial)):
            cosine = torch.nn.functional.cosine_similarity(gradient.flatten(), truth.flatten(), dim=0)
            rows.append(Departure(decay, name, _distance(gradient, truth), float(cosine)))
    return tuple(rows)


def _case(surrogate: Surrogate, gate: GateName, decay: float) -> tuple[nn.Network, Tensor, Tensor]:
    net = nn.build(NETWORK, decay, THRESHOLD, surrogate, WIDTH, gate, input_rate=0.3)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            drawn = torch.randn(parameter.shape, generator=draw) * (0.5 if parameter.dim() == 2 else 0.2)
            parameter.copy_((drawn * GRID).round() / GRID)
    x = (torch.rand((T, B, 20), generator=draw) < 0.3).float()
    return net.double(), x.double(), torch.randint(0, 10, (B,), generator=draw)


def _plain(
    net: nn.Network, x: Tensor, y: Tensor, surrogate: str, gate: str, decay: float
) -> tuple[Tensor, list[Tensor]]:
    """Output spikes and gradients by autograd, a step and a layer at a time, in float64."""
    parameters = [parameter.detach().double().requires_grad_() for parameter in net.parameters()]
    o = list(x.double())
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        u = z = torch.zeros(B, len(weight), dtype=torch.float64)
        spikes = []
        for o_t in o:
            u = _kept(u, z, gate, decay) + o_t @ weight.T + bias
            v = u.detach() - THRESHOLD
            slope = TABLE[surrogate].function(v, WIDTH)
            z = (v >= 0).double() + slope * (u - u.detach())  # a step whose slope is the curve
            spikes.append(z)
        o = spikes
    output = torch.stack(o)
    loss = ((torch.eye(output.shape[2], dtype=torch.float64)[y] - output.mean(0)) ** 2).sum() / (2 * B)
    return output.detach(), list(torch.autograd.grad(loss, parameters))


def _kept(u: Tensor, o: Tensor, gate: str, decay: float) -> Tensor:
    if gate == "paper":
        return u * decay * torch.exp(-o / decay)
    if gate == "spatial":
        return (u * decay * (1 - o)).detach()
    return u * decay * (1 - (o.detach() if gate == "detached" else o))


def _printed(net: nn.Network, x: Tensor, y: Tensor, decay: float) -> Tensor:
    """Cases 1 to 4 as printed: the gradient of the first weights."""
    first, last = net.record(x)
    u2, o2 = last.u, last.o
    assert first.u is not None
    assert u2 is not None
    gate = gates("paper", decay)[1]
    error = o2.mean(0) - torch.eye(o2.shape[2], dtype=o2.dtype)[y]
    from_loss = (error / (T * B)).expand_as(o2)
    arguments = gate, THRESHOLD, "sigmoid", WIDTH
    _, crossing = lif_backward_printed(from_loss, u2, *arguments)
    weight = list(net.parameters())[2].detach()
    eps, _ = lif_backward_printed(crossing @ weight, first.u, *arguments)
    return torch.einsum("tbn,tbm->nm", eps, x)


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())
