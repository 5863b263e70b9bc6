"""Networks beyond a chain of our own layers: each is right, compared with a plain loop, or refused with the reason."""

import contextlib
import copy
import io
import logging
import subprocess
import sys
import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from stbp import loss, nn
from stbp.ops import dispatch
from stbp.ops.spikes import Spikes
from tests.ops import plain
from tests.ops.against import dyadic, spikes


def lif(currents: Tensor) -> Tensor:
    """Spikes of neurons with a decay of 1/4 and a threshold of 1/2, by a loop that autograd differentiates."""
    return plain.lif(currents, 0.25, 0.5, "rectangle", 1.0, "linear")[0]


def each(module, x: Tensor) -> Tensor:
    """A layer on every frame `[B, ...]` of a window."""
    return torch.stack([module(frame) for frame in x])


class Filter(torch.nn.Module):
    """A synaptic filter: what comes in decays by half in every step."""

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)[0]

    def run(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        now, found = torch.zeros_like(x[0]) if state is None else state, []
        for frame in x:
            now = now / 2 + frame
            found.append(now)
        return torch.stack(found), now


class Doubled(nn.LIF):
    """Neurons that take twice the current, by a forward of their own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


class DoubledThroughout(nn.LIF):
    """The same with everything else to go with it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)

    def run(self, x, state=None):
        return super().run(2 * x, state)

    def trace(self, x):
        return super().trace(2 * x)


def net_of(*layers: torch.nn.Module) -> Any:
    net = nn.Network(*layers)
    dyadic(net)
    return net


@pytest.mark.parametrize("name", ["decay", "threshold", "width"])
@pytest.mark.parametrize("value", [torch.nn.Parameter(torch.tensor(0.5)), torch.full((3,), 0.5), torch.tensor([0.5])])
def test_a_constant_that_is_a_tensor_is_refused_by_name(name, value, unchecked_shapes):
    with pytest.raises(ValueError, match=f"{name} must be a number"):
        nn.LIF(**{name: value})


def test_a_layer_that_needs_the_window_gets_it():
    net = net_of(nn.Linear(6, 8), Filter(), nn.LIF(0.25), nn.Linear(8, 3), nn.LIF(0.25))
    x = spikes(7, 4, 6)
    first, second = (lambda f, i=i: torch.nn.functional.linear(f, net[i].weight, net[i].bias) for i in (0, 3))
    want = lif(each(second, lif(Filter()(each(first, x)))))
    assert want.any()
    assert torch.equal(net(x), want)
    assert torch.equal(net(Spikes.pack(x)), want)
    assert torch.equal(net(x[:, 1:2]), want[:, 1:2])
    parameters = list(net.parameters())
    y = torch.tensor([0, 1, 2, 0])
    got = torch.autograd.grad(loss.rate_mse(net(x), y), parameters)
    for g, w in zip(got, torch.autograd.grad(loss.rate_mse(want, y), parameters), strict=True):
        torch.testing.assert_close(g, w)
    o, state = net.run(x[:3])
    assert torch.equal(torch.cat([o, net.run(x[3:], state)[0]]), want)


def test_a_layer_that_does_not_say_what_it_remembers_is_refused_where_windows_go_on():
    class Silent(torch.nn.Module):
        stateless: bool

        def forward(self, x: Tensor) -> Tensor:
            return x

    net = net_of(nn.Linear(6, 8), Silent(), nn.LIF())
    assert net(spikes(3, 2, 6)).shape == (3, 2, 8)
    with pytest.raises(TypeError, match="layer 1, Silent, does not say what it remembers: give it run"):
        net.run(spikes(3, 2, 6))
    Silent.stateless = True
    assert torch.equal(net.run(spikes(3, 2, 6))[0], net(spikes(3, 2, 6)))


@pytest.mark.parametrize("change", ["constructor", "append", "insert", "set", "extend", "add"])
@pytest.mark.parametrize("held", [nn.LIF(), Filter(), torch.nn.GRU(4, 4)])
def test_a_container_of_torch_that_holds_a_layer_of_windows_is_refused_however_it_comes_in(change, held):
    container = torch.nn.Sequential(torch.nn.Linear(4, 4), held)

    def build() -> Tensor:
        net = nn.Network(nn.Linear(4, 4), *([container] if change == "constructor" else []))
        if change == "append":
            net.append(container)
        elif change == "insert":
            net.insert(1, container)
        elif change == "extend":
            net.extend([container])
        elif change == "add":
            net.add_module("1", container)
        elif change == "set":
            net[0] = container
        return net(spikes(3, 2, 4))

    with pytest.raises(ValueError, match=r"whole windows|mix samples"):
        build()


def test_frames_are_explicit():
    class Halved(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.dim() == 2, "a frame for each sample and step"
            return x / 2

    net = net_of(nn.Linear(4, 6), nn.Frames(torch.nn.Sequential(Halved(), torch.nn.Identity())), nn.LIF(0.25))
    x = spikes(5, 3, 4)
    assert torch.equal(net(x), lif(each(lambda f: net[0](f[None])[0] / 2, x)))
    assert torch.equal(net.run(x)[0], net(x))
    with pytest.raises(ValueError, match="holds a LIF, which needs whole windows"):
        nn.Frames(torch.nn.Sequential(torch.nn.Linear(4, 4), nn.LIF()))
    with pytest.raises(ValueError, match="GRU has a memory of its own"):
        nn.Frames(torch.nn.GRU(4, 4))


def test_a_subclass_means_the_same_everywhere():
    for kind in (Doubled, DoubledThroughout):
        net = net_of(nn.Linear(6, 8), kind(0.25), nn.Linear(8, 3), nn.LIF(0.25))
        x = spikes(7, 4, 6)
        assert torch.equal(net.record(x)[0].o, lif(2 * net[0](x)))
        assert torch.equal(net.record(x)[1].o, net(x))
        if kind is Doubled:
            assert net.record(x)[0].u is None
            with pytest.raises(TypeError, match="layer 1, Doubled, has a forward of its own and an inherited run"):
                net.run(x)
        else:
            assert torch.equal(net.run(x)[0], net(x))
            assert net.record(x)[0].u is not None
        with dispatch.reference_only():
            want = net(x)
        assert torch.equal(net(x), want)


@pytest.mark.parametrize(
    ("layer", "size", "reason"),
    [
        (lambda: nn.Conv2d(1, 3, 2, stride=2), (1, 8, 8), None),
        (lambda: nn.Conv2d(1, 3, 9), (1, 12, 12), None),
        (lambda: nn.Conv2d(1, 3, 13), (1, 16, 16), None),
        (lambda: torch.nn.Conv2d(2, 4, 3, groups=2), (2, 8, 8), "Conv2d"),
        (lambda: torch.nn.Conv2d(1, 2, 3, dilation=2), (1, 8, 8), "Conv2d"),
        (lambda: torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.MaxPool2d(2)), (1, 8, 8), "Sequential"),
    ],
)
def test_other_convolutions_are_right_and_told(layer, size, reason):
    net = net_of(nn.AvgPool2d(1), layer(), nn.LIF(0.25))
    x = spikes(5, 3, *size)
    module = net[1]
    own = [module] if not isinstance(module, torch.nn.Sequential) else list(module)

    def frame(f: Tensor) -> Tensor:
        for part in own:
            if isinstance(part, nn.Conv2d):
                f = torch.nn.functional.conv2d(f, part.weight, part.bias, part.stride, part.padding)
            else:
                f = part(f)
        return f

    want = lif(each(frame, x))
    assert want.any()
    assert torch.equal(net(x), want)
    parameters = list(net.parameters())
    weights = torch.randn(want.shape)
    got = torch.autograd.grad((net(x) * weights).sum(), parameters)
    for g, w in zip(got, torch.autograd.grad((want * weights).sum(), parameters), strict=True):
        torch.testing.assert_close(g, w, rtol=1e-4, atol=1e-4)
    said = nn.explain(net, x).layers[1].reason
    assert said == "" if reason is None else reason in said


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_another_type_of_number_runs_the_reference_and_says_so(dtype, caplog):
    dispatch._log_once.cache_clear()
    net = net_of(nn.Linear(6, 8), nn.LIF(0.25)).to(dtype)
    with caplog.at_level(logging.INFO, "stbp"):
        o = net(spikes(5, 3, 6).to(dtype))
    assert o.dtype == dtype
    assert torch.equal(
        o, lif(each(lambda f: torch.nn.functional.linear(f, *net[0].parameters()), spikes(5, 3, 6).to(dtype)))
    )
    assert str(dtype).removeprefix("torch.") in caplog.text


def test_hooks_are_called_by_forward_and_by_run_and_break_no_number(caplog):
    dispatch._log_once.cache_clear()
    net = net_of(nn.Linear(6, 8), nn.LIF(0.25), nn.Linear(8, 3), nn.LIF(0.25))
    x = spikes(5, 3, 6)
    want, state = net.run(x[:3])
    whole = net(x)
    called = []
    for index in (0, 1):
        net[index].register_forward_hook(lambda module, inputs, output: called.append(output))
    with caplog.at_level(logging.INFO, "stbp"):
        assert torch.equal(net(x), whole)
    assert "hook" in caplog.text
    assert len(called) == 2
    assert torch.equal(net.run(x[:3])[0], want)
    assert torch.equal(net.run(x[3:], state)[0], whole[3:])
    assert len(called) == 6
    assert all(isinstance(output, Tensor) for output in called)


def test_a_part_of_a_network_still_takes_images():
    net = nn.build("6x6-9-4")
    x = spikes(4, 2, 1, 6, 6)
    assert torch.equal(net[:2](x), net.record(x)[0].o)
    assert torch.equal(net[2:](net[:2](x)), net(x))


def test_synapses_without_a_bias_run_fused_and_norms_fold_into_them():
    net = nn.Network(
        nn.Conv2d(1, 3, 3, bias=False), nn.TdBatchNorm2d(3), nn.LIF(0.25), nn.Linear(48, 4, bias=False), nn.LIF()
    )
    told = nn.explain(net.eval(), spikes(5, 3, 1, 6, 6)).layers
    assert [layer.run for layer in told] == ["0 to 4"] * 5
    assert set(net.state_dict()) >= {"0.weight", "3.weight"}
    assert "0.bias" not in net.state_dict()


def test_what_is_no_window_and_what_is_no_layer_is_refused_by_name(unchecked_shapes):
    net: Any = nn.build("6-4")
    for wrong, message in (
        (torch.zeros(5, 2, 6, dtype=torch.int64), "x must be floating point; got torch.int64"),
        (torch.zeros(0, 2, 6), "at least one step"),
    ):
        with pytest.raises(ValueError, match=message):
            net(wrong)
    with pytest.raises(TypeError, match="x must be a tensor or Spikes"):
        net([1.0])
    layers: Any = [nn.LIF()]
    with pytest.raises(TypeError, match="Network takes layers one by one"):
        nn.Network(layers)


@pytest.mark.parametrize("notation", ["6x6-9-4", "6x6-2C3-4"])
def test_an_input_without_batch_is_told_so(notation):
    net = nn.build(notation)
    with pytest.raises(ValueError, match=r"x must be \[T, B, \.\.\.\], time first"):
        net(torch.zeros(5, 36))
    with pytest.raises(ValueError, match=r"x must be \[T, B"):
        net(torch.zeros(5, 6, 6))
    with pytest.raises(ValueError, match=r"x must be \[T, B"):
        net.run(torch.zeros(5, 36))


def test_labels_of_another_batch_point_at_swapped_axes(unchecked_shapes):
    o = nn.build("6-4")(spikes(8, 3, 6))
    with pytest.raises(ValueError, match="time comes first"):
        loss.rate_mse(o, torch.zeros(8, dtype=torch.int64))


def residual() -> Any:
    block = nn.Residual(
        nn.Conv2d(3, 3, 3, padding=1), nn.LIF(0.25), nn.Conv2d(3, 3, 3, padding=1), shortcut=nn.Conv2d(3, 3, 1)
    )
    return net_of(nn.Conv2d(1, 3, 3), nn.LIF(0.25), block, nn.LIF(0.25), nn.Linear(48, 4), nn.LIF(0.25))


def plain_residual(net: Any, x: Tensor) -> Tensor:
    def conv(layer, pad):
        return lambda f: torch.nn.functional.conv2d(f, layer.weight, layer.bias, 1, pad)

    block = net[2]
    first = lif(each(conv(net[0], 0), x))
    inner = each(conv(block.body[2], 1), lif(each(conv(block.body[0], 1), first)))
    h = lif(inner + each(conv(block.shortcut[0], 0), first))
    return lif(each(lambda f: torch.nn.functional.linear(f.flatten(1), net[4].weight, net[4].bias), h))


def test_a_residual_block_is_the_plain_loop():
    net, x, y = residual(), spikes(6, 4, 1, 6, 6), torch.tensor([0, 1, 2, 3])
    want = plain_residual(net, x)
    assert 0.02 < want.mean() < 0.98
    assert torch.equal(net(x), want)
    assert torch.equal(net(Spikes.pack(x)), want)
    parameters = list(net.parameters())
    got = torch.autograd.grad(loss.rate_mse(net(x), y), parameters)
    for g, w in zip(got, torch.autograd.grad(loss.rate_mse(want, y), parameters), strict=True):
        torch.testing.assert_close(g, w, rtol=1e-4, atol=1e-6)
    first, state = net.run(x[:2])
    assert torch.equal(torch.cat([first, net.run(x[2:], state)[0]]), want)
    assert [trace.layer for trace in net.record(x)] == ["1", "2.body.1", "3", "5"]
    assert torch.equal(net.record(x)[-1].o, want)
    assert set(net.state_dict()) >= {"0.weight", "2.body.0.weight", "2.shortcut.0.bias", "4.weight"}


def test_a_residual_block_of_two_sizes_is_refused():
    with pytest.raises(ValueError, match="body and shortcut must give the same size"):
        nn.Network(nn.Residual(nn.Linear(4, 5)))(spikes(3, 2, 4))


class TwoHeads(torch.nn.Module):
    """Any module that maps a window to a window."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.build("6-8")
        self.left, self.right = (nn.Network(nn.Linear(8, 2), nn.LIF(0.25)) for _ in range(2))

    def forward(self, x):
        h = self.trunk(x)
        return torch.cat([self.left(h), self.right(h)], -1)


def test_any_module_is_recorded_and_explained():
    net, x = TwoHeads(), spikes(6, 4, 6)
    traces = nn.record(net, x)
    assert [trace.layer for trace in traces] == ["trunk.1", "left.1", "right.1"]
    assert torch.equal(torch.cat([trace.o for trace in traces[1:]], -1), net(x))
    told = {layer.layer: layer for layer in nn.explain(net, x).layers}
    assert told["left.0"].kernels["forward"] == "events"
    assert told["trunk.1"].run == "trunk.0 to trunk.1"
    assert told["left.0"].reason == "its input needs a gradient, which packed spikes do not have"
    assert set(told) == {"trunk.0", "trunk.1", "left.0", "left.1", "right.0", "right.1"}


def test_explain_tells_the_kernel_or_the_reason_and_leaves_no_trace():
    net = nn.Network(
        nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3), nn.LIF(), torch.nn.MaxPool2d(2), nn.Linear(12, 4), nn.LIF()
    )
    before, numbers = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    why = nn.explain(net, spikes(6, 4, 1, 6, 6))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), numbers)
    conv, norm, neurons, pool, linear, last = why.layers
    assert conv.kernels["forward"] != "reference"
    assert "BatchNorm2d" in norm.reason
    assert neurons.kernels
    assert "MaxPool2d" in pool.reason
    assert linear.reason == "its input needs a gradient, which packed spikes do not have"
    assert last.kernels == {"forward": "window", "input": "window"}
    assert len(str(why).splitlines()) == 7
    with dispatch.reference_only():
        assert "reference" in str(nn.explain(net, spikes(6, 4, 1, 6, 6)))


def test_record_leaves_running_means_and_modes_alone():
    net = nn.Network(nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5), nn.LIF())
    norm, dropout = net[1], net[2]
    dropout.eval()
    x = spikes(6, 4, 6)
    first = net.record(x)
    assert norm.num_batches_tracked == 0
    assert norm.training
    assert not dropout.training
    assert torch.equal(net.record(x)[0].o, first[0].o)


@pytest.mark.parametrize("size", [(6,), (2, 5, 5)])
def test_the_norm_is_the_papers_and_folds_into_the_synapse(size):
    synapse = nn.Linear(6, 8) if len(size) == 1 else nn.Conv2d(2, 8, 3)
    norm = nn.TdBatchNorm2d(8, threshold=0.5, alpha=0.7)
    net = nn.Network(synapse, norm, nn.LIF(0.25))
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.uniform_(-0.2, 0.2)
    x = spikes(12, 10, *size)
    currents = synapse(x)
    axes = [0, 1, *range(3, currents.dim())]
    mean, var = currents.mean(axes, keepdim=True), currents.var(axes, keepdim=True, unbiased=False)
    shape = [8, *[1] * (currents.dim() - 3)]
    scaled = norm.weight.view(shape) * 0.7 * 0.5 * (currents - mean) / torch.sqrt(var + norm.eps)
    torch.testing.assert_close(norm(currents), scaled + norm.bias.view(shape), rtol=1e-4, atol=1e-5)
    for _ in range(100):
        net(x)
    net.eval()
    assert nn.explain(net, x).layers[1].run == "0 to 2"
    folded = net(x)
    apart = net[2](net[1](net[0](x)))
    assert (folded != apart).float().mean() < 2e-3  # a potential at the threshold may round to its other side
    assert 0.02 < folded.mean() < 0.9
    u = net.record(x)[0].u
    assert u is not None
    torch.testing.assert_close(u[0], norm(synapse(x))[0], rtol=1e-4, atol=1e-5)
    net.train()
    assert "batch" in nn.explain(net, x).layers[1].reason


def test_the_norm_has_gradients_of_the_plain_loop():
    net = nn.Network(nn.Linear(6, 8), nn.TdBatchNorm1d(8), nn.LIF(0.25))
    x, weights = spikes(7, 5, 6), torch.randn(7, 5, 8)
    currents = torch.nn.functional.linear(x, *net[0].parameters())
    want = lif(net[1](currents))
    parameters = list(net.parameters())
    assert torch.equal(net(x), want)
    got = torch.autograd.grad((net(x) * weights).sum(), parameters)
    for g, w in zip(got, torch.autograd.grad((want * weights).sum(), parameters), strict=True):
        torch.testing.assert_close(g, w, rtol=1e-4, atol=1e-5)


def test_a_network_in_a_network_is_the_network():
    flat: Any = nn.build("6-8-7-3", seed=2)
    nested: Any = nn.Network(nn.Network(*flat[:4]), *flat[4:])
    x = spikes(6, 4, 6)
    assert torch.equal(nested(x), flat(x))
    first, state = nested.run(x[:2])
    assert len(state) == 2
    assert len(state[0]) == 2
    assert torch.equal(torch.cat([first, nested.run(x[2:], state)[0]]), flat(x))
    other: Any = nn.build("6-8-7-3")
    again = nn.Network(nn.Network(*other[:4]), *other[4:])
    nn.initialise(again, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), flat.parameters(), strict=True))


def networks():
    return {
        "chain": (nn.build("6x6-3C3-P2-8-4"), (1, 6, 6)),
        "residual": (residual(), (1, 6, 6)),
        "two": (TwoHeads(), (6,)),
    }


@pytest.mark.parametrize("name", list(networks()))
def test_what_torch_does_with_modules_works_with_ours(name):
    net, size = networks()[name]
    x = spikes(5, 3, *size)
    want = net(x)
    assert torch.equal(copy.deepcopy(net)(x), want)
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), want)
    other = networks()[name][0]
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(x), want)
    values = {key: value.detach().clone().requires_grad_() for key, value in net.named_parameters()}
    got = torch.func.functional_call(networks()[name][0], values, (x,))
    assert torch.equal(got, want)
    grads = torch.autograd.grad(got.sum(), list(values.values()))
    for g, w in zip(grads, torch.autograd.grad(want.sum(), list(net.parameters())), strict=True):
        torch.testing.assert_close(g, w)
    for how in (contextlib.nullcontext, dispatch.reference_only):
        with how():
            usual = net(x)
            with torch.autocast("cpu"):
                under = net(x)
        assert under.dtype == torch.float32
        assert torch.equal(under, usual)


@pytest.mark.parametrize("name", list(networks()))
def test_several_threads_at_once_give_what_one_gives(name):
    net, size = networks()[name]
    inputs = [spikes(5, 3, *size) for _ in range(8)]
    wanted = [net(x) for x in inputs]
    found: list[Tensor | None] = [None] * 8

    def work(i: int) -> None:
        for _ in range(20):
            found[i] = net(inputs[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(f is not None and torch.equal(f, w) for f, w in zip(found, wanted, strict=True))


@pytest.mark.slow
def test_torch_compile_takes_the_whole_graph():
    """In a process of its own: the check of shapes in the tests is not for a compiler."""
    code = """
import torch
from stbp import nn

class TwoHeads(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.build("6x6-8")
        self.left, self.right = (nn.Network(nn.Linear(8, 2), nn.LIF()) for _ in range(2))

    def forward(self, x):
        h = self.trunk(x)
        return torch.cat([self.left(h), self.right(h)], -1)

torch.set_num_threads(1)
block = nn.Residual(nn.Conv2d(3, 3, 3, padding=1), nn.TdBatchNorm2d(3), nn.LIF(), shortcut=nn.Conv2d(3, 3, 1))
first = nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3), nn.LIF()
residual = nn.Network(*first, block, nn.LIF(), nn.Linear(48, 4), nn.LIF())
x = (torch.rand(5, 3, 1, 6, 6) < 0.4).float()
for net in (nn.build("6x6-3C3-P2-8-4"), residual.eval(), TwoHeads()):
    assert torch.equal(torch.compile(net, fullgraph=True, backend="aot_eager")(x), net(x))
"""
    done = subprocess.run([sys.executable, "-W", "error::UserWarning:stbp", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
