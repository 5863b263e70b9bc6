import dataclasses
from pathlib import Path

import pytest
import torch

import stbp
from stbp import nn, ops
from stbp.experiments import registry
from stbp.experiments.run import evaluate
from stbp.paper import quantized
from stbp.train import checkpoint
from stbp.train.checkpoint import Checkpoint
from stbp.train.evaluate import Run
from stbp.train.progress import Silent

SMALL = registry.experiment("digits-mlp").replace(network="64-30-10", T=8, epochs=3)


def untrained(network: str, shape: tuple[int, int, int], **fields) -> Run:
    e = SMALL.replace(network=network, **fields)
    net = nn.build(network, e.decay, e.threshold, gate=e.gate, input_rate=0.2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Run(e, net, [], {}, shape, tuple("0123456789"))


@pytest.fixture(scope="module")
def trained() -> Run:
    return stbp.fit(SMALL, report=Silent())


def test_weights_lie_on_the_finest_grid_that_holds_them():
    run = untrained("64-30-10", (1, 8, 8))
    small = quantized.quantize(run)
    for linear, synapse in zip((run.network[0], run.network[2]), small.synapses, strict=True):
        assert isinstance(linear, nn.Linear)
        assert linear.bias is not None
        step = 2.0 ** -synapse.exponent.float()
        assert int(synapse.weight.abs().max()) <= 127
        assert bool((synapse.weight.abs().amax(1) > 62).all())
        assert bool(((synapse.weight * step[:, None] - linear.weight).abs() <= step[:, None] / 2).all())
        assert bool(((synapse.bias * step - linear.bias).abs() <= step / 2).all())


def test_the_float_network_is_exactly_the_one_of_8_bits():
    small = quantized.quantize(untrained("64-30-10", (1, 8, 8)))
    net = quantized.dequantized(small)
    for linear, synapse in zip((net[0], net[2]), small.synapses, strict=True):
        assert isinstance(linear, nn.Linear)
        assert linear.bias is not None
        scale = 2.0 ** synapse.exponent.double()
        assert torch.equal(linear.weight.double() * scale[:, None], synapse.weight.double())
        assert torch.equal(linear.bias.double() * scale, synapse.bias.double())
        assert bool(linear.bias.any())


def test_a_current_is_the_same_whatever_the_order_of_its_sum():
    net = quantized.dequantized(quantized.quantize(untrained("784-40-10", (1, 28, 28))))
    linear = net[0]
    assert isinstance(linear, nn.Linear)
    inputs = torch.randperm(784)[:300]
    exact = linear.weight.double()[:, inputs].sum(1)
    for order in (inputs, inputs.flip(0), inputs[torch.randperm(300)]):
        total = torch.zeros(40)
        for i in order:
            total = total + linear.weight[:, i]
        assert torch.equal(total.double(), exact)


@pytest.mark.parametrize("gate", ["linear", "paper"])
def test_reference_and_kernels_give_the_same_spikes(gate):
    net = quantized.dequantized(quantized.quantize(untrained("64-30-10", (1, 8, 8), gate=gate)))
    x = ops.bernoulli(torch.rand(20, 1, 8, 8), 25)
    with torch.no_grad():
        o = net(x)
    assert torch.equal(o, net.record(x)[-1].o)
    assert 0 < o.mean() < 1


def test_accuracies_are_those_of_both_networks(trained: Run):
    small = quantized.measure(trained)
    assert small.about["test_accuracy"] == trained.test_accuracy
    again = dataclasses.replace(trained, network=quantized.dequantized(small))
    assert small.about["quantized_accuracy"] == evaluate(again).accuracy
    assert abs(small.about["quantized_accuracy"] - trained.test_accuracy) < 0.03
    assert small.about["test_samples"] == 360
    assert small.about["epochs"] == 3


def test_a_saved_network_is_the_same_one(trained: Run, tmp_path: Path):
    small = quantized.quantize(trained)
    quantized.save(tmp_path / "net.safetensors", small)
    back = quantized.load(tmp_path / "net.safetensors")
    assert (back.experiment, back.classes, back.about) == (small.experiment, small.classes, small.about)
    for a, b in zip(small.synapses, back.synapses, strict=True):
        assert torch.equal(a.weight, b.weight)
        assert torch.equal(a.bias, b.bias)
        assert torch.equal(a.exponent, b.exponent)
    assert (tmp_path / "net.safetensors").stat().st_size < 64 * 30 + 30 * 10 + 4000


def test_what_the_canvas_cannot_run_is_refused(trained: Run, tmp_path: Path):
    with pytest.raises(ValueError, match="numbers alone"):
        quantized.quantize(untrained("8x8-3C3-10", (1, 8, 8)))
    with pytest.raises(ValueError, match="Bernoulli-coded grey images"):
        quantized.quantize(untrained("64-10", (1, 8, 8), encoding="static"))
    loud = untrained("64-10", (1, 8, 8))
    with torch.no_grad():
        next(p for p in loud.network.parameters() if p.dim() == 1).fill_(1e7)
    with pytest.raises(ValueError, match="not exact in float32"):
        quantized.quantize(loud)
    checkpoint.save(tmp_path / "other.safetensors", Checkpoint({"a": torch.ones(1)}, {}))
    with pytest.raises(ValueError, match="no quantised network"):
        quantized.load(tmp_path / "other.safetensors")
