"""A trained network with weights of 8 bits, on a grid where sums are exact: what the page's canvas runs.

Each neuron has a grid of its own, of step 2^-exponent, the finest on which its weights fit into -127..127; its bias
lies on the same grid. So every current is a whole number of steps, equal in float32 and in integers whatever the order
of summation, and the network's spikes are the same wherever it runs.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int8, Int32
from torch import Tensor

import stbp
from stbp import nn
from stbp.config import Experiment
from stbp.experiments.run import evaluate
from stbp.nn import plan
from stbp.nn.record import synapses
from stbp.ops.stage import Neuron
from stbp.train import checkpoint
from stbp.train.checkpoint import Checkpoint
from stbp.train.evaluate import Run

MOST = 127
EXACT = 1 << 24  # float32 holds every whole number up to here


@dataclass(frozen=True)
class Synapse:
    """A Linear of N neurons with M inputs; neuron n's current is `2^-exponent[n] (weight[n] @ o + bias[n])`."""

    weight: Int8[Tensor, "N M"]
    bias: Int32[Tensor, " N"]
    exponent: Int8[Tensor, " N"]


@dataclass(frozen=True)
class Quantized:
    """Synapses in order, the experiment that trained them, and what is known of the network.

    `about` holds `test_accuracy` of the float network, `quantized_accuracy` and `test_samples` as `measure` found them,
    `commit` and `versions`.
    """

    experiment: Experiment
    synapses: tuple[Synapse, ...]
    classes: tuple[str, ...]
    about: dict[str, Any]


def quantize(run: Run) -> Quantized:
    """The network of a run with 8-bit weights, accuracies not measured yet.

    Raises:
        ValueError: the network is not a chain of Linear and LIF on Bernoulli-coded images of one channel.
    """
    e, net = run.experiment, run.network
    kinds = [type(plan.piece(layer)) for layer in net]
    if e.neuron != "lif" or e.encoding != "bernoulli" or run.shape[0] != 1 or e.step_ms is not None:
        raise ValueError(f"the canvas needs a spiking network on Bernoulli-coded grey images; {e.name} is none")
    if kinds != [plan.Synapse, Neuron] * (len(kinds) // 2):
        raise ValueError(f"the canvas needs a network of numbers alone, such as 784-400-10; got {e.network}")
    on_grid = tuple(_on_grid(layer) for layer in synapses(net).values())
    return Quantized(e, on_grid, run.classes, {})


def _on_grid(linear: Any) -> Synapse:
    weight = linear.weight.detach().cpu().double()
    bias = torch.zeros(len(weight)) if linear.bias is None else linear.bias.detach().cpu()
    largest = weight.abs().amax(1).clamp(min=2.0**-60)
    exponent = torch.log2(MOST / largest).floor().clamp(-60, 60)
    steps = (weight * 2 ** exponent[:, None]).round().to(torch.int8)
    offset = (bias.double() * 2**exponent).round()
    reach = steps.to(torch.float64).abs().sum(1) + offset.abs()
    if not bool((reach < EXACT).all()):
        raise ValueError("a bias is so large beside its neuron's weights that their sum is not exact in float32")
    return Synapse(steps, offset.to(torch.int32), exponent.to(torch.int8))


def dequantized(quantized: Quantized) -> nn.Network:
    """The network of float32 weights and biases that are exactly those of 8 bits."""
    e = quantized.experiment
    net = nn.build(e.network, e.decay, e.threshold, e.surrogate, e.width, e.gate)
    linears = synapses(net).values()
    with torch.no_grad():
        linear: Any
        for linear, synapse in zip(linears, quantized.synapses, strict=True):
            step = 2.0 ** -synapse.exponent.float()
            linear.weight.copy_(synapse.weight * step[:, None])
            linear.bias.copy_(synapse.bias * step)
    return net


def measure(run: Run, data: str | Path | None = None) -> Quantized:
    """The quantised network of a run, with its accuracy on the test set and the float network's, both measured now."""
    quantized = quantize(run)
    found = evaluate(run, data=data, device="cpu")
    after = evaluate(dataclasses.replace(run, network=dequantized(quantized)), data=data, device="cpu")
    about = {
        "test_accuracy": found.accuracy,
        "quantized_accuracy": after.accuracy,
        "test_samples": int(found.confusion.sum()),
        "epochs": len(run.history),
        "commit": run.summary.get("commit"),
        "versions": {"stbp": stbp.__version__, "torch": torch.__version__},
    }
    return dataclasses.replace(quantized, about=about)


def save(path: Path, quantized: Quantized) -> None:
    """Write a quantised network: one safetensors file, about a byte a weight."""
    tensors = {
        f"{index}.{field}": getattr(synapse, field)
        for index, synapse in enumerate(quantized.synapses)
        for field in ("weight", "bias", "exponent")
    }
    header = {"experiment": quantized.experiment.flat(), "classes": quantized.classes}
    checkpoint.save(path, Checkpoint(tensors, {**header, "quantized": quantized.about}))


def load(path: Path) -> Quantized:
    """Read what `save` wrote.

    Raises:
        ValueError: the file is damaged, or holds something else.
    """
    saved = checkpoint.load(path)
    if "quantized" not in saved.header:
        raise ValueError(f"{path} holds no quantised network; make one with stbp report --add-network RUN")
    count = len(saved.tensors) // 3
    parts = tuple(
        Synapse(*(saved.tensors[f"{index}.{field}"] for field in ("weight", "bias", "exponent")))
        for index in range(count)
    )
    header = saved.header
    return Quantized(Experiment.of(**header["experiment"]), parts, tuple(header["classes"]), header["quantized"])
