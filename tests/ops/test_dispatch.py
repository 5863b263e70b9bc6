"""Which path a call takes, and that it is told."""

import logging
from collections.abc import Iterator
from typing import cast

import pytest
import torch

from stbp import Spikes, loss, nn, ops
from stbp.names import Surrogate
from stbp.ops import call, dispatch, native
from stbp.ops.neuron.reference import gates, lif, lif_backward
from stbp.ops.stage import Neuron
from stbp.ops.surrogate import curves
from tests.isas import isa as isa
from tests.ops.against import dyadic, kernels, passes, random, spikes

pytestmark = pytest.mark.usefixtures("isa")


@pytest.fixture(autouse=True)
def _nothing_said_yet() -> Iterator[None]:
    dispatch._log_once.cache_clear()
    yield
    dispatch._log_once.cache_clear()


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ((torch.zeros(1), None), ""),
        ((torch.zeros(1), torch.zeros(1, dtype=torch.float64)), "float64: the compiled kernels take float32"),
        ((torch.zeros(1, dtype=torch.bfloat16),), "bfloat16: the compiled kernels take float32"),
        ((torch.zeros(1, device="meta"),), "a tensor on meta: the compiled kernels are for the CPU"),
    ],
)
def test_what_the_kernels_do_not_serve_has_a_reason(tensors, reason, isa):
    if isa == "off" and not reason:
        reason = "the compiled kernels are switched off by STBP_KERNELS=off"
    assert dispatch.why_not(*tensors) == reason
    assert dispatch.compiled(*tensors) == (not reason)


def test_neurons_in_float64_are_right_and_say_once_that_the_reference_runs(caplog):
    x, weight = random(6, 2, 30).double().requires_grad_(), random(6, 2, 30, seed=1).double()
    with dispatch.watch() as seen, caplog.at_level(logging.INFO, "stbp"):
        ops.lif(x, 0.3, 0.5, "sigmoid", 1.2)
        o = ops.lif(x, 0.3, 0.5, "sigmoid", 1.2)
        grad = torch.autograd.grad((o * weight).sum(), x)[0]
    rest = torch.zeros(2, 30, dtype=torch.float64)
    us, want = lif(x.detach(), rest, rest, gates("linear", 0.3)[0], 0.5)
    wanted = lif_backward(weight, rest, us, rest, rest, gates("linear", 0.3)[1], 0.5, "sigmoid", 1.2)[0]
    assert o.dtype == torch.float64
    assert torch.equal(o, want)
    assert torch.equal(grad, wanted)
    assert kernels(seen) == ["reference"] * 3
    assert {path.reason for path in seen} == {"float64: the compiled kernels take float32"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "float64: the compiled kernels take float32" in caplog.text


@pytest.mark.parametrize("way", ["asked for", "switched off"])
def test_a_reference_that_somebody_wants_is_recorded_but_not_logged(way, caplog, isa):
    if (way == "switched off") != (isa == "off"):
        pytest.skip("the other case")
    with dispatch.watch() as seen, dispatch.reference_only() if way == "asked for" else dispatch.no_skip():
        ops.lif(random(3, 2, 4))
    assert kernels(seen) == ["reference"]
    assert seen[0].reason
    assert not caplog.records


def test_an_operator_names_its_layer_forward_and_backward():
    x = random(3, 2, 5).requires_grad_()
    weight = random(4, 5, seed=1).requires_grad_()
    with dispatch.watch() as seen:
        with dispatch.layer("front"):
            current = ops.linear(x, weight)
        with dispatch.layer("behind"):
            o = ops.lif(current)
        o.sum().backward()
    named = [(path.layer, path.operator, path.step) for path in seen]
    assert named == [
        ("front", "linear", "forward"),
        ("behind", "lif", "forward"),
        ("behind", "lif", "input"),
        ("front", "linear", "weight"),
    ]


def test_why_a_layer_is_not_fused_is_recorded_and_logged_once(caplog):
    with dispatch.watch() as seen, caplog.at_level(logging.INFO, "stbp"):
        for _ in range(2):
            dispatch.refuse("3", "it has a hook")
    assert [(path.layer, path.kernel, path.reason) for path in seen] == [("3", "not fused", "it has a hook")] * 2
    assert [record.levelname for record in caplog.records] == ["INFO"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_torchs_defaults_change_no_result(dtype):
    net = dyadic(nn.build("8x8-5C3-P2-12-4", decay=0.25))
    images, maps, y = torch.rand(3, 8, 8), Spikes.pack(spikes(5, 3, 1, 8, 8)), torch.tensor([0, 3, 1])
    x, flat, current = spikes(5, 3, 1, 8, 8), random(5, 3, 6).requires_grad_(), random(5, 3, 4).requires_grad_()
    weight, target = random(7, 6, seed=1).requires_grad_(), random(5, 3, 4, seed=2)

    def everything() -> list[torch.Tensor]:
        made = [ops.bernoulli(images, 5).bits, ops.static(images, 2), maps.dense(), ops.avg_pool2d(maps, 2)]
        for o in (net(x), net(maps), ops.lif(current)):
            made += [o, *torch.autograd.grad((o * target).sum(), [*net.parameters(), current], allow_unused=True)]
        product = ops.linear(flat, weight)
        made += [product, *torch.autograd.grad(product.sum(), (flat, weight))]
        made += [loss.rate_mse(current, y), *torch.autograd.grad(loss.rate_mse(current, y), current)]
        return [tensor for tensor in made if tensor is not None]

    want = everything()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            got = everything()
    finally:
        torch.set_default_dtype(torch.float32)
    assert len(got) == len(want) > 15
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        assert a.device == b.device
        assert torch.equal(a, b)


# --- a surrogate that the kernels do not know -------------------------------------------------------------------------


def cauchy(v: torch.Tensor, width: float) -> torch.Tensor:
    """A fifth curve, of area 1 and peak 1/width."""
    return 1 / width / (1 + (torch.pi * v / width) ** 2)


@pytest.fixture
def fifth(monkeypatch: pytest.MonkeyPatch) -> Surrogate:
    monkeypatch.setitem(curves.TABLE, "cauchy", curves.Curve(cauchy, 3.2))
    return cast(Surrogate, "cauchy")


def test_a_curve_that_no_kernel_has_is_the_references_own(fifth, isa, caplog, unchecked_shapes):
    x = random(6, 2, 30).requires_grad_()
    rest = torch.zeros(2, 30)
    us, want = lif(x.detach(), rest, rest, gates("linear", 0.2)[0], 0.5)
    wanted = lif_backward(torch.ones(6, 2, 30), rest, us, rest, rest, gates("linear", 0.2)[1], 0.5, fifth, 1.3)[0]
    with dispatch.watch() as seen:
        o = ops.lif(x, surrogate=fifth, width=1.3)
        grad = torch.autograd.grad(o.sum(), x)[0]
    assert torch.equal(o, want)
    assert torch.equal(grad, wanted)
    assert kernels(seen) == ["reference", "reference"]
    if isa != "off":
        known = ", ".join(native.curves())
        assert {path.reason for path in seen} == {f"surrogate cauchy: the compiled kernels know {known}"}
        assert len(caplog.records) == 1


def test_a_network_with_such_a_curve_is_not_fused_and_right(fifth, unchecked_shapes):
    net, x = dyadic(nn.build("20-30-4", decay=0.25, surrogate=fifth)), spikes(6, 3, 20)
    target = random(6, 3, 4, seed=5)
    with dispatch.watch() as seen:
        o = net(x)
        got = torch.autograd.grad((o * target).sum(), list(net.parameters()))
    with dispatch.reference_only():
        same = net(x)
        want = torch.autograd.grad((same * target).sum(), list(net.parameters()))
    assert torch.equal(o, same)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert {path.kernel for path in passes(seen) if path.operator == "lif"} == {"reference"}


def test_no_kernel_is_called_with_a_curve_that_it_does_not_list(fifth):
    if native.kernels() is None:
        pytest.skip("no kernels")
    neuron = Neuron.of(0.2, 0.5, fifth, 1.0)
    with pytest.raises(ValueError, match="'cauchy' has no compiled kernel; they know rectangle"):
        call.NeuronStruct.of(neuron)
