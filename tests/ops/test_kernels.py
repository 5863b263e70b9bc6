"""The compiled kernels against the reference, on every instruction set that this processor has."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import get_args

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stbp import Spikes, nn, ops
from stbp.nn import plan
from stbp.ops import dispatch, native
from stbp.ops.chain import op as chain_op
from stbp.ops.chain import reference as chain_reference
from stbp.ops.encode import reference as encode_reference
from stbp.ops.neuron import reference as lif_reference
from stbp.ops.neuron.reference import GateName, gates
from stbp.ops.spikes import pack_bits
from stbp.ops.stage import Neuron, Refused, Stage, conv_stage, current_stage, decode, encode, linear_stage
from tests.ops import against, plain
from tests.ops.against import difference, dyadic, random, spikes

CURVES, GATES = native.curves(), get_args(GateName)
if native.kernels() is None:
    pytest.skip(f"no kernels to test: {native.why_not()}", allow_module_level=True)


@pytest.fixture(autouse=True, params=native.supported())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every test runs on every instruction set; denormals count as zero for the reference as for the kernels."""
    monkeypatch.setenv("STBP_KERNELS", request.param)
    native._load.cache_clear()
    assert native.isa() == request.param
    torch.set_flush_denormal(True)
    yield request.param
    torch.set_flush_denormal(False)
    native._load.cache_clear()


# --- lif ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 3, 63), (5, 1, 129), (3, 2, 1000), (4, 0, 7), (2, 3, 4, 5, 6), (7, 2, 513)]
)
@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("gate", GATES)
def test_lif_equals_the_reference(shape, curve, gate, nan_filled_memory):
    against.lif_equals_the_reference(shape, curve, gate, "window")


def test_lif_fires_exactly_at_the_threshold():
    against.lif_fires_exactly_at_the_threshold()


def test_lif_takes_input_and_gradients_in_any_memory_order():
    against.lif_equals_the_reference_in_memory_order(random(40, 3, 6).permute(2, 1, 0)[:, :, ::2])


def test_denormals_are_flushed_inside_and_the_callers_mode_comes_back():
    torch.set_flush_denormal(False)
    tiny = 2.0**-130
    x = torch.zeros(2, 1, 16)
    x[0] = tiny
    _, state = ops.lif(x, decay=0.5, state=ops.zero_state(x))
    assert state.u.abs().max() == 0
    assert (torch.full((1,), tiny) * 0.5).item() != 0


# --- synapses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (63, 129), (129, 10), (1000, 17), (50, 320)])
def test_linear_equals_the_reference(density, size):
    N, M = size
    x, weight, bias = spikes(5, 3, N, density=density), random(M, N, seed=1), random(M, seed=2)
    weight.requires_grad_()
    bias.requires_grad_()
    for form in (x, Spikes.pack(x)):
        got = ops.linear(form, weight, bias)
        want = torch.nn.functional.linear(x.double(), weight.double(), bias.double())
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-4)
        grad = random(*got.shape, seed=3)
        got_grads = torch.autograd.grad(got, (weight, bias), grad)
        want_grads = torch.autograd.grad(want, (weight, bias), grad.double())
        for a, b in zip(got_grads, want_grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 9, 8, 3, 3, 1, 0),
        (3, 7, 9, 17, 5, 1, 2),
        (20, 6, 6, 40, 3, 1, 1),
        (2, 5, 5, 4, 5, 1, 0),
        (3, 9, 8, 17, 3, 2, 1),
        (20, 11, 7, 5, 2, 3, 0),
        (1, 13, 12, 3, 11, 1, 0),
        (17, 14, 15, 3, 9, 2, 4),
        (2, 5, 5, 4, 1, 2, 3),
    ],
)
def test_conv2d_equals_the_reference(shape):
    C, H, W, M, k, stride, padding = shape
    x, weight = spikes(4, 2, C, H, W), random(M, C, k, k, seed=1).requires_grad_()
    bias = random(M, seed=2).requires_grad_()
    with dispatch.watch() as seen:
        got = ops.conv2d(Spikes.pack(x), weight, bias, stride, padding)
    assert [path.kernel for path in seen] == ["events"]
    frames = torch.nn.functional.conv2d(x.flatten(0, 1).double(), weight.double(), bias.double(), stride, padding)
    want = frames.unflatten(0, x.shape[:2])
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-4)
    grad = random(*got.shape, seed=3)
    got_grads = torch.autograd.grad(got, (weight, bias), grad)
    for a, b in zip(got_grads, torch.autograd.grad(want, (weight, bias), grad.double()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("density", [0.1, 0.9])
def test_two_windows_equal_one_long_window_bit_for_bit(density):
    net = nn.build("10x10-6C3-P2-20-5", threshold=0.3)
    x = Spikes.pack(spikes(12, 3, 1, 10, 10, density=density))
    whole, end = net.run(x)
    first, state = net.run(x[:5])
    second, after = net.run(x[5:], state)
    assert torch.equal(torch.cat([first, second]), whole)
    assert all(torch.equal(a.u, b.u) for a, b in zip(after, end, strict=True))


# --- chains --------------------------------------------------------------------------------------------------------

NETWORKS = {
    "40-63-10": (7, 3, 40),
    "129-400-33-1": (9, 5, 129),
    "12x12-5C3-7": (5, 3, 1, 12, 12),
    "28x28-15C5-P2-40C5-P2-30-10": (6, 4, 1, 28, 28),
    "14x14x2-20C3-P2-18C2-9": (6, 4, 2, 14, 14),
    "9x9x3-4C4-33C3-17C2-9": (6, 5, 3, 9, 9),
    "9x9x3-P2-4C2-P2-9": (6, 5, 3, 9, 9),
    "9x9x3-9": (6, 5, 3, 9, 9),
    "9x9x3-P2-9": (1, 1, 3, 9, 9),
    "70-5": (70, 2, 70),
}


def compared(net: nn.Network, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Output and gradients of a loss on it."""
    o = net(x)
    weight = random(*o.shape, seed=5)
    return o, *torch.autograd.grad((o * weight).sum(), list(net.parameters()))


@pytest.mark.parametrize("density", [0.03, 0.3, 0.95])
@pytest.mark.parametrize("notation", NETWORKS)
def test_a_network_on_the_dyadic_grid_equals_the_reference(notation, density):
    x = spikes(*NETWORKS[notation], density=density)
    net = dyadic(nn.build(notation, decay=0.25))
    with dispatch.watch() as seen:
        got = compared(net, x)
    assert {path.step for path in seen} >= {"forward", "weight"}
    with dispatch.reference_only():
        want = compared(net, x)
    assert torch.equal(got[0], want[0])
    for a, b in zip(got[1:], want[1:], strict=True):
        assert difference(a, b) < 1e-5


@pytest.mark.parametrize("notation", NETWORKS)
def test_a_chain_is_the_composition_of_its_operators(notation):
    x = spikes(*NETWORKS[notation])
    net = dyadic(nn.build(notation, decay=0.25))
    chain = plan.plan(list(net), Spikes.pack(x))
    assert chain.length == len(net)
    want = chain_reference.chain(x, chain.stages, chain.parameters)
    assert torch.equal(chain(Spikes.pack(x)), want)


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("notation", ["40-63-10", "14x14x2-20C3-P2-18C2-9"])
def test_all_curves_and_gates_in_a_network(notation, curve, gate):
    x = spikes(*NETWORKS[notation])
    net = dyadic(nn.build(notation, decay=0.25, surrogate=curve, gate=gate, width=1.5))
    got = compared(net, x)
    with dispatch.reference_only():
        want = compared(net, x)
    if gate != "paper":  # its gate is no multiple of a power of two
        assert torch.equal(got[0], want[0])
    assert (got[0] != want[0]).float().mean() < 0.01
    for a, b in zip(got[1:], want[1:], strict=True):
        assert difference(a, b) < (1e-5 if torch.equal(got[0], want[0]) else 0.1)


def test_the_gradient_of_a_network_in_float64_by_the_plain_loop():
    net = dyadic(nn.build("20-30-4", decay=0.25))
    x, weight = spikes(6, 3, 20), random(6, 3, 4, seed=5)
    (net(x) * weight).sum().backward()
    parameters = [p.detach().double().requires_grad_() for p in net.parameters()]
    h = x.double()
    for w, b in zip(parameters[::2], parameters[1::2], strict=True):
        h = plain.lif(torch.nn.functional.linear(h, w, b), 0.25, 0.5, "rectangle", 1.0, "linear")[0]
    (h * weight).sum().backward()
    for ours, theirs in zip(net.parameters(), parameters, strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert difference(ours.grad.double(), theirs.grad) < 1e-6


def test_currents_flow_through_neurons_at_the_front_of_a_chain():
    for shape, synapse in (((7, 3, 30), nn.Linear(30, 20)), ((7, 3, 3, 8, 8), nn.Conv2d(3, 20, 3))):
        net = dyadic(nn.Network(nn.LIF(), synapse, nn.LIF()))
        x = random(*shape).requires_grad_()
        results = []
        for way in (dispatch.no_skip, dispatch.reference_only):
            with way(), dispatch.watch() as seen:
                o = net(x)
                results.append((o, *torch.autograd.grad((o * random(*o.shape, seed=1)).sum(), [x, synapse.weight])))
            assert {kernel == "reference" for kernel in against.kernels(seen)} == {way is dispatch.reference_only}
        assert torch.equal(results[0][0], results[1][0])
        for a, b in zip(results[0][1:], results[1][1:], strict=True):
            assert difference(a, b) < 1e-5


def test_modules_of_torch_split_a_chain():
    modules = [
        nn.Conv2d(3, 20, 3),
        torch.nn.BatchNorm2d(20, eps=0),
        nn.LIF(),
        nn.AvgPool2d(2),
        nn.Conv2d(20, 7, 2, padding=1),
        nn.LIF(),
        torch.nn.Dropout(0.0),
        nn.Flatten(),
        nn.Linear(7 * 16, 5),
        nn.LIF(),
    ]
    net = dyadic(nn.Network(*modules).eval())
    x = spikes(6, 3, 3, 8, 8)
    got = compared(net, x)
    with dispatch.reference_only():
        want = compared(net, x)
    assert got[0].any()
    assert torch.equal(got[0], want[0])
    for (name, _), a, b in zip(net.named_parameters(), got[1:], want[1:], strict=True):
        assert difference(a, b) < 1e-4, name


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    T=st.integers(1, 70),
    B=st.integers(1, 5),
    sizes=st.lists(st.integers(1, 90), min_size=2, max_size=4),
    percent=st.integers(0, 100),
    seed=st.integers(0, 1000),
)
def test_any_multilayer_network_on_the_dyadic_grid(T, B, sizes, percent, seed):
    net = dyadic(nn.build("-".join(map(str, sizes)), decay=0.5), seed)
    x = spikes(T, B, sizes[0], density=percent / 100, seed=seed)
    got = compared(net, x)
    with dispatch.reference_only():
        want = compared(net, x)
    assert torch.equal(got[0], want[0])
    for a, b in zip(got[1:], want[1:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    T=st.integers(1, 5),
    B=st.integers(0, 3),
    C=st.integers(1, 20),
    maps=st.integers(1, 40),
    k=st.integers(1, 11),
    stride=st.integers(1, 3),
    pool=st.integers(1, 2),  # a ninth is not on the grid
    padding=st.integers(0, 3),
    side=st.integers(11, 14),
    percent=st.integers(0, 100),
    seed=st.integers(0, 1000),
)
@example(T=4, B=2, C=1, maps=15, k=5, stride=2, pool=1, padding=2, side=12, percent=30, seed=0)  # looked up
@example(T=1, B=3, C=17, maps=20, k=9, stride=3, pool=2, padding=3, side=14, percent=30, seed=0)
def test_any_convolutions_on_the_dyadic_grid(
    T, B, C, maps, k, stride, pool, padding, side, percent, seed, nan_filled_memory
):
    """Two in a row, so that the second sends its input's gradient down."""
    first = nn.Conv2d(C, maps, k, stride=stride, padding=padding)
    between = ((side + 2 * padding - k) // stride + 1) // pool
    modules = [first, nn.LIF(0.5)]
    if between:
        second = nn.Conv2d(maps, 3, min(k, between + 4), stride=stride, padding=2)
        modules += [nn.AvgPool2d(pool), second, nn.LIF(0.5)]
    net = nn.Network(*modules)
    x = spikes(T, B, C, side, side + 1, density=percent / 100, seed=seed)
    with dispatch.watch() as seen:
        got = compared(dyadic(net, seed), x)
    assert all(path.kernel not in ("reference", "torch", "not fused") for path in seen), seen
    with dispatch.reference_only():
        want = compared(net, x)
    assert torch.equal(got[0], want[0])
    for a, b in zip(got[1:], want[1:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("notation", ["129-400-33-1", "28x28-15C5-P2-40C5-P2-30-10"])
def test_the_number_of_threads_changes_no_bit(notation):
    net = nn.build(notation, threshold=0.3)
    x = spikes(NETWORKS[notation][0], 20, *NETWORKS[notation][2:])
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(compared(net, x))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("notation", ["40-63-10", "12x12-5C3-7"])
def test_skipping_samples_without_a_gradient_changes_no_bit(notation):
    net = nn.build(notation, threshold=0.3)
    x = spikes(*NETWORKS[notation])
    results = []
    for way in (dispatch.no_skip, dispatch.watch):
        with way():
            o = net(x)
            weight = random(*o.shape, seed=5)
            weight[:, 1:] = 0
            results.append(torch.autograd.grad((o * weight).sum(), list(net.parameters())))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert any(g.abs().sum() > 0 for g in results[0])


def test_the_empty_batch():
    net = nn.build("12x12-5C3-7")
    o = net(Spikes.pack(torch.zeros(5, 0, 1, 12, 12)))
    assert o.shape == (5, 0, 7)
    assert all(g.abs().sum() == 0 for g in torch.autograd.grad(o.sum(), list(net.parameters())))


def test_nothing_depends_on_what_memory_held_before(nan_filled_memory):
    net = dyadic(nn.build("28x28-15C5-P2-40C5-P2-30-10", decay=0.25))
    x = spikes(3, 2, 1, 28, 28)
    got = compared(net, x)
    assert all(part.isfinite().all() for part in got)
    with dispatch.reference_only():
        assert torch.equal(got[0], net(x))


def taken(stages: Sequence[Stage | Refused]) -> list[Stage]:
    return [stage for stage in stages if isinstance(stage, Stage)]


def test_the_chain_passes_torchs_own_checks():
    # which compare what is saved too: with the rectangle, whose window leaves memory unwritten, it would differ
    neuron = Neuron.of(0.3, 0.5, "polynomial", 1.0)
    stages = [linear_stage((n,), m, True, neuron=neuron) for n, m in ((20, 17), (17, 3))]
    parameters = [
        p.requires_grad_() for p in (random(17, 20), random(17, seed=1), random(3, 17, seed=2), random(3, seed=3))
    ]
    bits = Spikes.pack(spikes(4, 2, 20)).bits
    torch.library.opcheck(chain_op._chain, (bits, parameters, *encode(taken(stages)), True))


def test_stages_survive_the_dispatcher():
    neuron = Neuron.of(0.3, 0.5, "sigmoid", 1.5, "paper")
    stages = [
        current_stage((3, 9, 9), neuron),
        conv_stage((3, 9, 9), (5, 3, 2, 2), True, padding=1, pool=2, neuron=neuron._replace(surrogate="gaussian")),
        linear_stage((5, 5, 5), 7, False, pool=2),
    ]
    assert decode(*encode(taken(stages))) == stages


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        (conv_stage((3, 20, 20), (5, 3, 3, 2), True), "kernel 3x2"),
        (conv_stage((3, 6, 6), (5, 3, 4, 4), True, pool=2), "larger than its input of 3x3"),
        (conv_stage((2, 6, 6), (5, 3, 4, 4), True), "2x6x6 does not go"),
        (linear_stage((3, 30, 30), 5, True, pool=12), "pooling 12x12: the CPU kernels take at most 11x11"),
        (linear_stage((30,), 5, True, pool=2), "pooling 2x2: its input, 30, has no such areas"),
        (linear_stage((3, 4), 5, True), "2 axes"),
        (current_stage((3, 1, 1), None), "one pixel"),
        (current_stage((), None), "0 axes"),
    ],
)
def test_what_cannot_be_a_stage_says_why(stage, reason):
    assert isinstance(stage, Refused)
    assert reason in stage.reason


# --- encoder and packing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [1, 4, 30, 33, 64, 130])
@pytest.mark.parametrize("N", [1, 7, 63, 129])
@pytest.mark.parametrize("kind", ["bytes", "floats"])
def test_bernoulli_spikes_are_those_of_the_reference(T, N, kind):
    generator = torch.Generator().manual_seed(N)
    image = torch.randint(0, 256, (5, N), generator=generator, dtype=torch.uint8)
    image[0, 0], image[1, 0] = 0, 255
    if kind == "floats":
        image = torch.rand((5, N), generator=generator)
        image[0, 0], image[1, 0], image[2, 0] = 0, 1, 2.0**-24
    sample = torch.tensor([3, 0, 4_000_000_000, 7, 1])
    with dispatch.watch() as seen:
        got = ops.bernoulli(image, T, seed=5, epoch=2, sample=sample)
    assert [path.operator for path in seen] == ["bernoulli"]
    assert torch.equal(got.bits, encode_reference.bernoulli(image, T, 5, 2, sample))


@pytest.mark.parametrize("N", [1, 8, 63, 129, 1000])
def test_packing_is_that_of_the_reference(N):
    o = spikes(3, 2, N)
    packed = Spikes.packed(o)
    assert packed is not None
    assert torch.equal(packed.bits, pack_bits(o != 0))
    for wrong in (0.5, -1.0, 2.0, float("nan")):
        o[2, 1, N - 1] = wrong
        assert Spikes.packed(o) is None


def test_a_dense_input_that_holds_more_than_spikes_is_not_packed():
    net = nn.build("20-30-4")
    x = torch.rand(5, 2, 20)
    with dispatch.reference_only():
        want = net(x)
    assert torch.equal(net(x), want)


# --- choice --------------------------------------------------------------------------------------------------------


def test_the_reference_alone_is_no_kernel():
    net = nn.build("20-30-4")
    with dispatch.reference_only(), dispatch.watch() as seen:
        net(spikes(5, 2, 20)).sum().backward()
    assert set(against.kernels(seen)) == {"reference"}
    assert {path.reason for path in seen} == {"dispatch.reference_only() asks for the reference"}


def test_float64_is_the_references():
    with dispatch.watch() as seen:
        ops.lif(random(3, 2, 5).double())
        nn.build("20-30-4").double()(spikes(5, 2, 20).double())
    assert set(against.kernels(seen)) == {"reference"}
    assert {path.reason for path in against.passes(seen)} == {"float64: the compiled kernels take float32"}


def test_layers_are_named_as_in_the_state_dict():
    net = nn.build("28x28-15C5-P2-40C5-P2-30-10")
    with dispatch.watch() as seen:
        net(spikes(6, 4, 1, 28, 28)).sum().backward()
    names = [(path.layer, path.operator) for path in against.passes(seen) if path.step == "forward"]
    assert names == [("0", "conv2d"), ("3", "conv2d"), ("7", "linear"), ("9", "linear")]
    assert [path.kernel for path in against.passes(seen) if path.step == "forward"] == [
        "lookup",
        "events",
        "events",
        "events",
    ]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float64])
def test_what_is_not_float32_is_not_read_as_if_it_were(dtype):
    with dispatch.watch() as seen:
        assert nn.build("20-30-4").to(torch.float64)(spikes(5, 2, 20).to(torch.float64)).dtype == torch.float64
        ours = nn.Network(torch.nn.Identity())
        x = spikes(5, 2, 20).to(dtype)
        if dtype.is_floating_point:
            assert torch.equal(ours(x), x)
        else:
            with pytest.raises(ValueError, match="x must be floating point"):
                ours(x)
        weight, bias = random(4, 20).double(), random(4).double()
        assert ops.linear(Spikes.pack(spikes(5, 2, 20)), weight, bias).dtype == torch.float64
    assert set(against.kernels(seen)) == {"reference"}


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64])
def test_torchs_default_dtype_changes_nothing(default):
    net = dyadic(nn.build("40-63-10", decay=0.25))
    x = spikes(7, 3, 40)
    want = compared(net, x)
    torch.set_default_dtype(default)
    try:
        o = net(x)
        got = (o, *torch.autograd.grad((o * random(*o.shape, seed=5).float()).sum(), list(net.parameters())))
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(part.dtype == torch.float32 for part in got)
    assert torch.equal(got[0], want[0])


def test_bits_beyond_the_last_element_are_refused():
    with pytest.raises(ValueError, match="6 spare bits"):
        Spikes(torch.full((3, 2, 2), 255, dtype=torch.uint8), (3, 2, 10))


def test_input_of_another_rank_is_no_chain():
    odd = Spikes.pack(spikes(5, 3, 2, 3, 4, 5))
    assert plan.plan([nn.Linear(24, 4), nn.LIF()], odd).length == 0
    assert plan.plan([nn.Flatten(), nn.Linear(120, 4), nn.LIF()], odd).length == 3


def test_a_subclass_that_computes_something_else_is_not_fused():
    class Silent(nn.LIF):
        def forward(self, x):
            return x * 0

    net = nn.Network(nn.Linear(20, 4), Silent())
    with dispatch.watch() as seen:
        net(spikes(5, 2, 20))
    assert plan.plan(list(net), Spikes.pack(spikes(5, 2, 20))).length == 0
    assert [path.operator for path in against.passes(seen)][:1] == ["linear"]


def test_a_window_narrower_than_rounding_keeps_spikes_apart():
    net = nn.build("8x8-5C3-6C3-2", decay=0.0, threshold=100.0, width=1e-6)
    dyadic(net)
    x = spikes(4, 2, 1, 8, 8)
    assert all(torch.equal(a, b) for a, b in zip(compared(net, x)[1:], reference_of(net, x)[1:], strict=True))


def reference_of(net: nn.Network, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    with dispatch.reference_only():
        return compared(net, x)


def test_hooks_on_a_layer_are_called():
    net = nn.build("20-30-4")
    called = []
    net[1].register_forward_hook(lambda *_: called.append(1))
    net(spikes(5, 2, 20))
    assert called == [1]


def test_spikes_of_a_kernel_are_those_of_the_reference_on_the_same_currents():
    x = random(20, 3, 100, seed=4) * 0.7
    u, o = lif_reference.lif(x, *ops.zero_state(x), gates("linear", 0.2)[0], 0.5)
    got, state = ops.lif(x, state=ops.zero_state(x))
    assert torch.equal(got, o)
    assert torch.equal(state.u, u[-1])


@pytest.mark.slow
def test_torch_compile_takes_a_whole_network():
    code = """
import torch
from stbp import Spikes, nn
net = nn.build("20-30-4")
x = (torch.rand(5, 2, 20) < 0.3).float()
step = torch.compile(lambda x: net(x).sum(0), backend="aot_eager")
assert torch.equal(step(x), net.run(x)[0].sum(0))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
