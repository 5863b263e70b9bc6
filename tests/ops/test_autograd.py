"""Ways to differentiate that the operators' kernels do not have: refused by name, or right."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from stbp import Spikes, loss, nn, ops
from tests.isas import isa as isa
from tests.ops.against import random, spikes

pytestmark = [
    pytest.mark.usefixtures("isa"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),  # by torch.func.jvp itself
    pytest.mark.filterwarnings("ignore:There is a performance drop"),  # torch loops where it has no batching rule
]

LABELS = torch.tensor([0, 2, 1])
MAPS, FLAT = (4, 3, 1, 6, 6), (4, 3, 5)


CURRENTS, PIXELS, FIRED, MAPS_FIRED = random(*FLAT), random(*MAPS), spikes(*FLAT), spikes(*MAPS)
NET = nn.Network(nn.Linear(5, 6), nn.LIF(0.25))


def of_a_run(weight: Tensor) -> Tensor:
    return torch.func.functional_call(NET, {"0.weight": weight}, (FIRED,))


# Name in the message, the operator as a function of one tensor, the tensor.
REFUSING: dict[str, tuple[str, Callable[[Tensor], Tensor], Tensor]] = {
    "lif": ("lif", ops.lif, random(*FLAT)),
    "linear of a dense input": ("linear", lambda w: ops.linear(CURRENTS, w), random(6, 5)),
    "linear of spikes": ("linear", lambda w: ops.linear(Spikes.pack(FIRED), w), random(6, 5)),
    "conv2d of a dense input": ("conv2d", lambda w: ops.conv2d(PIXELS, w), random(2, 1, 3, 3)),
    "conv2d of spikes": ("conv2d", lambda w: ops.conv2d(Spikes.pack(MAPS_FIRED), w), random(2, 1, 3, 3)),
    "a run of layers": (r"(a run of layers|linear|lif)", of_a_run, random(6, 5)),
}
RIGHT: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Tensor]] = {
    "avg_pool2d": (
        lambda x: ops.avg_pool2d(x, 2),
        lambda x: torch.stack([torch.nn.functional.avg_pool2d(frame, 2) for frame in x.unbind()]),
        random(*MAPS),
    ),
    "rate_mse": (
        lambda o: loss.rate_mse(o, LABELS),
        lambda o: ((o.mean(0) - torch.nn.functional.one_hot(LABELS, 4)) ** 2).sum() / 6,
        random(4, 3, 4),
    ),
}


def penalty(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Gradient of the squared norm of a gradient."""
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad((f(x) ** 2).sum(), x, create_graph=True)
    return torch.autograd.grad((grad**2).sum() + 0 * x.sum(), x)[0]


def dual(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor | None:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(forward_ad.make_dual(x, torch.ones_like(x)))).tangent


def batched(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    y = f(x)
    directions = torch.stack([torch.ones_like(y), random(*y.shape, seed=7)])
    return torch.autograd.grad(y, x, directions, is_grads_batched=True)[0]


MODES = {
    "double backward": penalty,
    "dual tensors": dual,
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (torch.ones_like(x),))[1],
    "vmap": lambda f, x: torch.func.vmap(f)(torch.stack([x, 2 * x])),
    "grad": lambda f, x: torch.func.grad(lambda y: f(y).sum())(x),
    "grad of grad": lambda f, x: torch.func.grad(lambda y: torch.func.grad(lambda z: (f(z) ** 2).sum())(y).sum())(x),
    "jacrev": lambda f, x: torch.func.jacrev(f)(x),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("operator", REFUSING)
def test_what_an_operator_cannot_differentiate_it_refuses_by_name(operator, mode, unchecked_shapes):
    name, f, x = REFUSING[operator]
    with pytest.raises(NotImplementedError, match=f"^{name} (cannot|can be|has no)"):
        MODES[mode](f, x)


@pytest.mark.parametrize("mode", [*MODES, "batched gradients"])
@pytest.mark.parametrize("operator", RIGHT)
def test_what_can_be_differentiated_in_every_way_is_right(operator, mode, unchecked_shapes):
    ours, plain, x = RIGHT[operator]
    take = MODES.get(mode, batched)
    torch.testing.assert_close(take(ours, x), take(plain, x))


@pytest.mark.parametrize("operator", REFUSING)
def test_batched_gradients_are_right_or_refused(operator, isa, unchecked_shapes):
    _, f, x = REFUSING[operator]
    if operator == "a run of layers" and isa != "off":
        with pytest.raises(NotImplementedError, match=r"^a run of layers cannot"):
            batched(f, x)
        return
    got = batched(f, x)
    leaf = x.clone().requires_grad_()
    y = f(leaf)
    directions = torch.ones_like(y), random(*y.shape, seed=7)
    want = [torch.autograd.grad(y, leaf, direction, retain_graph=True)[0] for direction in directions]
    torch.testing.assert_close(got, torch.stack(want))


def test_a_penalty_through_a_network_and_the_loss_is_refused():
    net = nn.build("5-6-3")
    value = loss.rate_mse(net(FIRED), LABELS)
    with pytest.raises(NotImplementedError, match="can be differentiated once"):
        torch.autograd.grad(value, list(net.parameters()), create_graph=True)


def test_the_first_derivative_still_flows_where_a_graph_is_kept():
    x = random(*FLAT).requires_grad_()
    o = ops.lif(x)
    first, second = (torch.autograd.grad(o.sum(), x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert first.abs().sum() > 0
