import contextlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stbp import Spikes, loss, nn
from stbp.ops.neuron.op import State
from stbp.ops.neuron.reference import Gate
from tests.ops import plain

CNN = "28x28-15C5-P2-40C5-P2-300-10"


def window(*shape: int, rate: float = 0.2, seed: int = 0) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


@pytest.mark.parametrize(
    ("notation", "shape", "keys"),
    [
        ("784-800-10", (784,), {"0": (800, 784), "2": (10, 800)}),
        ("784-800-10", (1, 28, 28), {"0": (800, 784), "2": (10, 800)}),
        ("34x34x2-800-10", (2, 34, 34), {"0": (800, 2312), "2": (10, 800)}),
        (CNN, (1, 28, 28), {"0": (15, 1, 5, 5), "3": (40, 15, 5, 5), "7": (300, 640), "9": (10, 300)}),
        ("9x7x2-P2-3C2-4", (2, 9, 7), {"1": (3, 2, 2, 2), "4": (4, 18)}),
    ],
)
def test_the_notation_gives_shapes_and_the_state_dict_keys_of_the_contract(notation, shape, keys):
    net = nn.build(notation)
    state = net.state_dict()
    expected = {f"{index}.{part}" for index in keys for part in ("weight", "bias")}
    assert set(state) == expected
    assert {index: tuple(state[f"{index}.weight"].shape) for index in keys} == keys
    out = net(window(3, 2, *shape))
    assert out.shape == (3, 2, int(notation.rsplit("-", 1)[1]))
    assert set(out.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("notation", "message"),
    [
        ("784-8x0-10", "part 2 of network '784-8x0-10' is '8x0': it must be like 15C5"),
        ("28x28-15C5-P2-40C5-P2-300", None),
        ("28x28-15C5-P2", "must end in the number of its outputs"),
        ("784", "must end in the number of its outputs"),
        ("28y28-10", "part 1 of network '28y28-10' is '28y28'"),
        ("0-10", "part 1"),
        (
            "28x28-15C5-P2-40C13-10",
            "part 4 of network '28x28-15C5-P2-40C13-10' is '40C13': it is 13 pixels wide.*12x12",
        ),
        ("28x28-100-15C5-10", "part 3 .* '15C5': it needs maps, but what comes before it is 100 numbers"),
        ("784-P2-10", "part 2 .* 'P2': it needs maps"),
        ("28x28-P30-10", "'P30': it is 30 pixels wide"),
        ("", "part 1"),
    ],
)
def test_a_wrong_notation_points_at_the_part(notation, message):
    if message is None:
        assert nn.build(notation)(window(1, 1, 1, 28, 28)).shape == (1, 1, 300)
        return
    with pytest.raises(ValueError, match=message):
        nn.build(notation)


@given(st.text("0123456789xCP-", max_size=12))
def test_any_notation_builds_or_raises_value_error(notation):
    numbers = [int(n) for n in "".join(c if c.isdigit() else " " for c in notation).split()]
    if math.prod(numbers) < 1e7:
        with contextlib.suppress(ValueError):
            nn.build(notation)


@given(cut=st.integers(1, 6))
def test_two_windows_in_a_row_equal_one_long_window(cut):
    net = nn.build("8x8-4C3-P2-20-5")
    x = window(7, 2, 1, 8, 8)
    whole, end = net.run(x)
    first, state = net.run(x[:cut])
    second, last = net.run(x[cut:], state)
    assert torch.equal(torch.cat([first, second]), whole)
    for got, want in zip(last, end, strict=True):
        assert torch.equal(got.u, want.u)
        assert torch.equal(got.o, want.o)


def test_a_state_of_another_network_is_refused():
    with pytest.raises(ValueError, match="each of the 2 layers with a memory; got 1"):
        nn.build("8-4-2").run(window(2, 1, 8), [State(torch.zeros(1, 4), torch.zeros(1, 4))])


def test_record_holds_what_the_network_did():
    net = nn.build("8x8-4C3-P2-20-5")
    x = window(6, 3, 1, 8, 8, rate=0.4)
    traces = net.record(x)
    assert [trace.layer for trace in traces] == ["1", "5", "7"]
    assert torch.equal(traces[-1].o, net(x))
    assert all(trace.u is not None and torch.equal(trace.o, (trace.u >= 0.5).float()) for trace in traces)
    assert net.name(7) == "layer 7 (LIF behind Linear 20-5)"


def test_packed_spikes_and_a_dense_tensor_give_the_same():
    net = nn.build("8x8-4C3-P2-20-5")
    x = window(6, 3, 1, 8, 8, rate=0.4)
    assert torch.equal(net(Spikes.pack(x)), net(x))
    net = nn.build("64-20-5")
    assert torch.equal(net(Spikes.pack(x)), net(x.flatten(2)))


def test_modules_of_torch_stand_between_ours():
    net = nn.Network(
        nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), nn.LIF(), torch.nn.Flatten(), nn.Linear(144, 5), nn.LIF()
    )
    x = window(6, 3, 1, 8, 8, rate=0.4)
    norm = net[1]
    assert isinstance(norm, torch.nn.BatchNorm2d)
    loss.rate_mse(net(Spikes.pack(x)), torch.tensor([0, 1, 2])).backward()
    assert net(x).shape == (6, 3, 5)
    assert norm.weight.grad is not None
    frames = torch.nn.functional.conv2d(x.flatten(0, 1), net.get_parameter("0.weight"), net.get_parameter("0.bias"))
    torch.testing.assert_close(norm.running_mean, (1 - 0.9**2) * frames.mean((0, 2, 3)))


def test_a_foreign_module_that_holds_one_of_ours_is_refused():
    with pytest.raises(ValueError, match="layer 1, Sequential, holds a LIF, which needs whole windows"):
        nn.Network(nn.Linear(4, 3), torch.nn.Sequential(nn.LIF()))


def test_balanced_weights_know_the_decay_of_a_gate_of_four_numbers():
    slow, gated, quick = (
        net.get_parameter("0.weight")
        for net in (
            nn.build("100-50-10", decay=0.9),
            nn.build("100-50-10", gate=Gate(0.9, 0.0, -0.9, -0.9)),
            nn.build("100-50-10", decay=0.2),
        )
    )
    assert torch.equal(slow, gated)
    assert not torch.equal(slow, quick)


def on_the_grid(net: nn.Network, seed: int) -> None:
    """Weights and biases on multiples of 2^-8: with decay 1/4 every sum is exact in float32, in any order."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randint(-64, 65, parameter.shape, generator=random) / 256)


def test_a_whole_network_on_the_dyadic_grid_equals_the_plain_loop_bit_for_bit():
    net = nn.build("10x10x2-6C3-P2-30-10", decay=0.25)
    on_the_grid(net, seed=1)
    x = window(7, 3, 2, 10, 10, rate=0.3)
    h = x
    for trace in net.record(x):
        current = []
        for frame in h:
            if trace.layer == "1":
                current.append(
                    torch.nn.functional.conv2d(frame, net.get_parameter("0.weight"), net.get_parameter("0.bias"))
                )
            else:
                name = str(int(trace.layer) - 1)
                pooled = torch.nn.functional.avg_pool2d(frame, 2) if frame.dim() == 4 else frame
                weight, bias = net.get_parameter(f"{name}.weight"), net.get_parameter(f"{name}.bias")
                current.append(torch.nn.functional.linear(pooled.flatten(1), weight, bias))
        h, us, _ = plain.lif(torch.stack(current), 0.25, 0.5, "rectangle", 1.0, "linear")
        assert trace.u is not None
        assert torch.equal(trace.u, us)
        assert torch.equal(trace.o, h)
        assert 0.02 < h.mean() < 0.9
    assert torch.equal(net(x), h)


def test_gradients_of_all_weights_equal_autograd_of_the_plain_loop():
    net = nn.build("12-9-5", surrogate="gaussian", width=1.5).double()
    x, y = window(6, 4, 12, rate=0.5).double(), torch.tensor([0, 1, 2, 3])
    parameters = list(net.parameters())
    got = torch.autograd.grad(loss.rate_mse(net(x), y), parameters)
    h = x
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        current = torch.stack([torch.nn.functional.linear(frame, weight, bias) for frame in h])
        h, _, _ = plain.lif(current, 0.2, 0.5, "gaussian", 1.5, "linear")
    want = torch.autograd.grad(loss.rate_mse(h, y), parameters)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-11, atol=1e-14)
        assert w.norm() > 0


@pytest.mark.parametrize("threshold", [0.3, 1.5])
@pytest.mark.parametrize("decay", [0.0, 0.2, 0.8])
@pytest.mark.parametrize("rate", [0.03, 0.3])
def test_balanced_weights_bring_hidden_neurons_near_the_threshold(threshold, decay, rate):
    net = nn.build("500-400-300-10", decay=decay, threshold=threshold, input_rate=rate)
    for trace in net.record(window(30, 20, 500, rate=rate))[:2]:
        assert 0.02 < trace.o.mean() < 0.3
        assert trace.u is not None
        spread = trace.u.std() / threshold
        assert 0.6 < spread < 1.5


def test_balanced_outputs_start_silent_within_reach_of_the_surrogate():
    trace = nn.build("500-400-10", threshold=0.3, input_rate=0.1).record(window(30, 20, 500, rate=0.1))[-1]
    assert trace.o.mean() < 0.01
    assert trace.u is not None
    assert ((trace.u - 0.3).abs() < 0.5).float().mean() > 0.98


def test_the_papers_weights_have_unit_rows_and_are_silent_at_its_threshold():
    net = nn.build("784-400-10", decay=0.1, threshold=1.5, init="paper")
    rows = net.get_parameter("0.weight").norm(dim=1)
    torch.testing.assert_close(rows, torch.ones(400), rtol=1e-5, atol=1e-5)
    hidden, output = net.record(window(30, 10, 784, rate=0.13))
    assert hidden.o.mean() < 1e-3
    assert output.o.sum() == 0


def test_weights_depend_on_seed_and_layer_alone():
    first, again, other = nn.build("30-30-30-5", seed=4), nn.build("30-30-30-5", seed=4), nn.build("30-30-30-5", seed=5)
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert not torch.equal(first.get_parameter("0.weight"), other.get_parameter("0.weight"))
    assert not torch.equal(first.get_parameter("0.weight"), first.get_parameter("2.weight"))


def test_building_leaves_torchs_own_random_numbers_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    nn.build("30-20-5")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decay": 1.5}, "decay must lie in"),
        ({"gate": "soft"}, "gate must be one of linear, paper, detached, spatial"),
        ({"init": "zeros"}, "init must be one of balanced, paper, torch"),
        ({"input_rate": 0.0}, "input_rate must lie in"),
        ({"seed": -1}, "seed must lie in"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, message, unchecked_shapes):
    with pytest.raises(ValueError, match=message):
        nn.build("784-10", **arguments)


def test_biases_are_zero_or_drawn_from_zero_up_to_the_bound():
    net = nn.build("784-2000-10")
    assert not any(module.bias.any() for module in net if isinstance(module, nn.Linear))
    drawn = nn.build("784-2000-10", bias=1.5, seed=3)
    first, last = (module for module in drawn if isinstance(module, nn.Linear))
    assert 0 <= first.bias.min() < 0.01
    assert 1.49 < first.bias.max() <= 1.5
    assert first.bias.mean().item() == pytest.approx(0.75, abs=0.03)
    assert not torch.equal(first.bias[:10], last.bias)
    assert torch.equal(first.weight, nn.build("784-2000-10", seed=3).get_parameter("0.weight"))
