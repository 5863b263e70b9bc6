"""The Triton kernels against the reference: on a GPU where there is one, else on the CPU by Triton's interpreter."""

import copy
import functools
import os
import subprocess
import sys
from typing import get_args

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: pip install stbp[gpu]")

from stbp import Spikes, nn, ops
from stbp.nn import plan as fusion
from stbp.ops import dispatch, gpu
from stbp.ops.chain import gpu as chain
from stbp.ops.neuron import gpu as lif_gpu
from stbp.ops.neuron.reference import GateName
from stbp.ops.philox import ENCODE, philox
from stbp.ops.stage import Neuron
from stbp.ops.surrogate.gpu import CURVES
from stbp.ops.synapse import gpu as synapse
from stbp.ops.synapse.gpu import counts
from tests.ops import against
from tests.ops.against import difference, dyadic

GATES = get_args(GateName)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# every test takes the Triton kernels, whatever the device, but where it asks for the reference
pytestmark = [pytest.mark.usefixtures("triton_kernels"), pytest.mark.slow]

random = functools.partial(against.random, device=DEVICE)
spikes = functools.partial(against.spikes, device=DEVICE)


# --- lif ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 3, 63), (5, 1, 129), (3, 2, 1000), (4, 0, 7), (2, 3, 4, 5, 6), (33, 1, 40), (70, 2, 30)]
)
@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("gate", GATES)
def test_lif_equals_the_reference(shape, curve, gate, nan_filled_memory):
    against.lif_equals_the_reference(shape, curve, gate, "triton", DEVICE)


def test_lif_fires_exactly_at_the_threshold():
    against.lif_fires_exactly_at_the_threshold(DEVICE)


@pytest.mark.parametrize(
    "view",
    [
        lambda: random(40, 3, 6).permute(2, 1, 0)[:, :, ::2],
        lambda: random(6, 2, 3, 20)[:, 1],
        lambda: random(1, 3, 20).expand(6, 3, 20),
    ],
)
def test_lif_takes_currents_and_gradients_in_any_memory_order(view, nan_filled_memory):
    against.lif_equals_the_reference_in_memory_order(view())


@pytest.mark.parametrize("gate", ["linear", "detached"])
def test_lif_computes_bfloat16_currents_in_float32(gate):
    x = (random(5, 2, 50) * 0.7).bfloat16().requires_grad_()
    o = ops.lif(x, gate=gate)
    grad = spikes(5, 2, 50, seed=1).bfloat16()
    o.backward(grad)
    with dispatch.reference_only():
        exact = x.detach().float().requires_grad_()
        expected = ops.lif(exact, gate=gate)
        expected.backward(grad.float())
    assert o.dtype == torch.bfloat16
    assert torch.equal(o.float(), expected)
    assert x.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(x.grad, exact.grad.bfloat16())


@pytest.mark.parametrize(
    ("gate", "curve", "T", "bytes"),
    [("linear", "rectangle", 30, 4 * 30), ("detached", "rectangle", 30, 2 * 4), ("spatial", "gaussian", 30, 4 * 30)],
)
def test_lif_keeps_two_bits_a_step_where_no_potential_is_asked_for(gate, curve, T, bytes):
    saved = lif_gpu.saved_like(torch.empty(T, 10), Neuron.of(0.2, 0.5, curve, 1.0, gate), save=True)
    assert saved.nbytes == 10 * bytes


# --- encoder -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 7, 5), (2, 300, 30), (0, 5, 3), (2, 9, 33)])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (2**32 - 1, 7), (3, 2**32 - 1)])
def test_the_encoder_draws_the_same_spikes_as_on_a_cpu(size, whole, seed, epoch):
    B, N, T = size
    numbers = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (B, N), generator=numbers) if whole else torch.rand(B, N, generator=numbers)
    image = image.to(torch.uint8) if whole else image
    sample = torch.randint(0, 2**32, (B,), generator=numbers)
    got = ops.bernoulli(image.to(DEVICE), T, seed, epoch, sample.to(DEVICE))
    with dispatch.reference_only():
        want = ops.bernoulli(image, T, seed, epoch, sample)
    assert torch.equal(got.bits.cpu(), want.bits)


def test_a_pixel_fires_below_its_probability_not_at_it():
    sample = torch.tensor([5, 9])
    words = philox((torch.arange(40)[None], torch.zeros(1, 1).long(), sample[:, None], torch.tensor(3)), (7, ENCODE))
    image = (words[0] >> 8) / 2**24  # just what is drawn in the first step
    got = ops.bernoulli(image.to(DEVICE), 4, 7, 3, sample.to(DEVICE)).dense()
    assert got[0].sum() == 0
    assert got[1:].sum() > 0


# --- synapses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "pool"), [((3, 8, 6), 2), ((2, 7, 7), 3), ((13, 1, 1), 1), ((1, 11, 11), 11)])
def test_counts_are_those_of_each_area(size, pool):
    o = spikes(3, 2, *size)
    found = counts(Spikes.pack(o).bits, size, pool)
    want = torch.nn.functional.avg_pool2d(o.flatten(0, 1), pool) * pool**2
    assert torch.equal(found.float(), want.round())


@pytest.mark.parametrize("how", synapse.PRODUCTS)
@pytest.mark.parametrize(
    ("x", "w", "stride", "padding"),
    [
        ((3, 2, 70), (33, 70), 1, 0),
        ((1, 1, 5), (1, 5), 1, 0),
        ((2, 2, 3, 9, 8), (5, 3, 3, 3), 1, 0),
        ((2, 1, 2, 9, 9), (70, 2, 5, 5), 2, 2),
        ((2, 0, 20), (3, 20), 1, 0),
    ],
)
def test_synapses_behind_spikes_equal_the_reference(how, x, w, stride, padding, nan_filled_memory):
    packed = Spikes.pack(spikes(*x, density=0.4))
    weight, bias = random(*w).requires_grad_(), random(w[0], seed=1).requires_grad_()

    def run():
        out = ops.linear(packed, weight, bias) if len(w) == 2 else ops.conv2d(packed, weight, bias, stride, padding)
        return out.detach(), torch.autograd.grad((out * random(*out.shape, seed=2)).sum(), (weight, bias))

    with dispatch.products(how), dispatch.watch() as seen:
        out, grads = run()
    with dispatch.reference_only():
        want, wanted = run()
    assert {path.kernel for path in seen} == {"triton"}
    tolerance = 2e-3 if how == "tf32" and DEVICE == "cuda" else 3e-6
    for a, b in zip((out, *grads), (want, *wanted), strict=True):
        assert a.shape == b.shape
        assert difference(a, b) < tolerance


def test_three_bfloat16_numbers_are_one_float32_number():
    w = random(20000) * torch.logspace(-28, 30, 20000, device=DEVICE)
    first = w.bfloat16()
    second = (w - first.float()).bfloat16()
    third = (w - first.float() - second.float()).bfloat16()
    assert torch.equal(first.double() + second.double() + third.double(), w.double())


def test_a_weight_gradient_is_whole_whatever_the_number_of_its_parts(monkeypatch):
    seen = counts(Spikes.pack(spikes(10, 60, 40)).bits, (40, 1, 1), 1)
    eps = random(600, 7)
    geometry = synapse.Geometry(40, 1, 1, 1, 1, 1, 1, 0)
    found = synapse.weight_gradient(seen, eps, (7, 40), geometry, 1.0)
    assert difference(found, eps.T @ seen.view(600, 40).float()) < 3e-6
    eps = (eps * 256).round() / 256  # every sum is exact, in any order
    wanted = eps.T @ seen.view(600, 40).float()
    for parts in (1, 2, 64):
        monkeypatch.setattr(synapse, "_PARTS", parts)
        assert torch.equal(synapse.weight_gradient(seen, eps, (7, 40), geometry, 1.0), wanted)


# --- networks ----------------------------------------------------------------------------------------------------

NETWORKS = [
    ("20-30-10", (5, 3, 20), "linear", "rectangle"),
    ("20-30-10", (9, 3, 20), "detached", "rectangle"),
    ("20-30-10", (5, 3, 20), "paper", "gaussian"),
    ("12x12-3C3-P2-5C3-10", (4, 2, 1, 12, 12), "linear", "rectangle"),
    ("11x11x2-3C3-P2-20-10", (4, 2, 2, 11, 11), "linear", "sigmoid"),
]


@pytest.mark.parametrize(("text", "shape", "gate", "curve"), NETWORKS)
def test_a_network_is_one_chain_with_the_spikes_of_the_reference(text, shape, gate, curve, nan_filled_memory):
    """The reference is the CPU's."""
    net = dyadic(nn.build(text, decay=0.25, gate=gate, surrogate=curve))
    x = Spikes.pack(against.spikes(*shape))
    weight = (against.random(*shape[:2], 10) * 256).round() / 256

    def run(net: nn.Network, x: Spikes, weight: torch.Tensor):
        o = net(x)
        return o.cpu(), [g.cpu() for g in torch.autograd.grad((o * weight).sum(), list(net.parameters()))]

    with dispatch.watch() as seen:
        o, grads = run(copy.deepcopy(net).to(DEVICE), x.to(DEVICE), weight.to(DEVICE))
    with dispatch.reference_only():
        want, wanted = run(net, x, weight)
    assert set(against.kernels(seen)) == {"triton"}
    assert 0.02 < float(want.detach().mean()) < 0.9
    assert torch.equal(o, want)
    for a, b in zip(grads, wanted, strict=True):
        assert difference(a, b) < 3e-6


def test_the_saved_memory_of_a_chain_survives_a_second_backward_pass():
    net = dyadic(nn.build("20-30-10", decay=0.25).to(DEVICE))
    o = net(Spikes.pack(spikes(5, 3, 20)))
    grads = [torch.autograd.grad(o.sum(), list(net.parameters()), retain_graph=True) for _ in range(2)]
    for a, b in zip(*grads, strict=True):
        assert torch.equal(a, b)


def test_a_chain_that_starts_with_neurons_sends_a_gradient_to_its_currents():
    net = dyadic(nn.build("20-30-10", decay=0.25).to(DEVICE))
    x = random(5, 3, 20).requires_grad_()
    net(x).sum().backward()
    with dispatch.reference_only():
        same = x.detach().clone().requires_grad_()
        net(same).sum().backward()
    assert x.grad is not None
    assert same.grad is not None
    assert difference(x.grad, same.grad) < 3e-6


def test_without_gradients_a_chain_keeps_only_spikes():
    net = dyadic(nn.build("20-30-10", decay=0.25).to(DEVICE))
    x = Spikes.pack(spikes(5, 3, 20))
    with torch.no_grad():
        o = net(x)
    assert torch.equal(o, net(x))
    plan = fusion.plan(list(net), x)
    out, saved = chain.forward(x.bits, plan.parameters, plan.stages, save=False)
    assert torch.equal(out, o)
    assert saved.numel() == 64  # 5 x 3 x 30 spikes of the hidden layer, rows of 4 bytes, in whole vectors


@pytest.mark.parametrize(("gate", "hidden"), [("linear", 4 * 64), ("detached", 2 * 2 * 4)])
def test_a_chain_keeps_potentials_or_two_bits_a_step_and_spikes_as_bits(gate, hidden):
    T, B = 64, 4
    net = nn.build("32-32-16", gate=gate).to(DEVICE)
    plan = fusion.plan(list(net), Spikes.pack(spikes(T, B, 32)))
    neurons = hidden * B * (32 + 16)  # of both layers
    assert chain.saved_bytes(plan.stages, T, B, save=True) == neurons + T * B * 32 // 8
    assert chain.saved_bytes(plan.stages, T, B, save=False) == T * B * 32 // 8


def test_spikes_and_weights_on_different_devices_are_no_chain():
    x = Spikes.pack(spikes(5, 3, 20))
    assert fusion.plan(list(nn.build("20-30-10").to("meta")), x).length == 0


def test_what_may_not_run_is_said():
    if gpu.INTERPRETED:
        assert not dispatch.triton(torch.zeros(1, dtype=torch.float64))
        assert not dispatch.triton(torch.zeros(1, device="meta"))
    with dispatch.reference_only():
        assert not dispatch.triton(torch.zeros(1, device=DEVICE))


# --- torch.compile -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "shape"), [("12-8-3", (4, 2, 12)), ("6x6-2C3-P2-3", (3, 2, 1, 6, 6))])
def test_torch_compile_takes_a_network_on_the_kernels_without_a_graph_break(text: str, shape: tuple[int, ...]):
    """In a process of its own: in this one the tests' checks of shapes wrap every function."""
    code = f"""
import contextlib, torch
from stbp import Spikes, nn
from stbp.ops import dispatch, gpu

device = "{DEVICE}"
net = nn.build("{text}").to(device)
x = (torch.rand({shape}, generator=torch.Generator().manual_seed(1)) < 0.4).float()
goal = torch.rand(*x.shape[:2], 3).to(device)
with contextlib.nullcontext() if device == "cuda" else dispatch.interpreted():
    for given in (x.to(device), Spikes.pack(x).to(device)):
        step = torch.compile(lambda x: net(x), fullgraph=True, backend="aot_eager")
        found = []
        for run in (step, net):
            with dispatch.watch() as seen:
                o = run(given)
                found.append((o, torch.autograd.grad((o * goal).sum(), list(net.parameters()))))
            passes = [path for path in seen if path.operator not in ("run", "chain")]
            assert passes and all(path.kernel in ("triton", "torch") for path in passes), seen
            assert any(path.kernel == "triton" for path in seen), seen
        assert torch.equal(found[0][0], found[1][0])
        for compiled, eager in zip(found[0][1], found[1][1], strict=True):
            torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-5)
        torch._dynamo.reset()
"""
    environment = os.environ | ({} if DEVICE == "cuda" else {"TRITON_INTERPRET": "1"})
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
