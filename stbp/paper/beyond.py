"""What one trained network gives after fewer steps than it has, from sparser and denser input, at how many operations.

None of this is in the paper. Measured on all test samples, with the spikes that training evaluates with.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stbp import nn
from stbp.data.dataset import Windows
from stbp.data.images import ImageSet
from stbp.experiments import results
from stbp.experiments.datasets import for_experiment
from stbp.ops.spikes import Spikes
from stbp.paper.inference import COMMAND
from stbp.train import runs
from stbp.train.evaluate import device_called, load_run, predictions
from stbp.train.source import Batch, source

SCALES = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0)


class Density(NamedTuple):
    """Test images of which each pixel fires `scale` times as often, at most in every step: mean input and accuracy."""

    scale: float
    input_rate: float
    accuracy: float


class Operations(NamedTuple):
    """Of one synapse layer, per sample: additions of a weight, and multiply-accumulates of the non-spiking twin."""

    layer: str
    synaptic: float
    twin: int


def measure(folder: Path, data: str | Path | None = None, device: str = "auto") -> dict[str, Any]:
    """All three of the run in a folder, as `results/beyond/` keeps them.

    Raises:
        ValueError: there is no finished run, or one of a network without spikes, of other samples than images, or of
            which some steps do not count.
    """
    run = load_run(folder)
    e = run.experiment
    if not run.summary:
        raise ValueError(f"{folder} holds no finished run: there is no summary.json in it")
    if e.neuron != "lif" or e.encoding != "bernoulli" or e.readout is not None:
        raise ValueError(f"{folder}: this is measured of spiking networks with encoding bernoulli and no readout")
    run.network.to(device_called(device))
    _, test_set = for_experiment(e, data)
    if not isinstance(test_set.samples, ImageSet):
        raise ValueError(f"{folder}: this is measured on images; got dataset {e.dataset}")
    return {
        "command": COMMAND,
        "experiment": {k: v for k, v in e.flat().items() if k not in results.VARIED},
        "seed": e.seed,
        "test_samples": len(test_set),
        "accuracy_by_step": accuracy_by_step(run.network, test_set),
        "density": [found._asdict() for found in accuracy_by_density(run.network, test_set)],
        "operations": [found._asdict() for found in operations(run.network, test_set)],
        "trained_at": run.summary["commit"],
        "versions": runs.versions(),
        "commit": runs.commit(),
    }


@torch.no_grad()
def accuracy_by_step(net: nn.Network, samples: Windows) -> list[float]:
    """Accuracy by the spikes counted up to each of the T steps; before the first spike the answer is class 0."""
    right = torch.zeros(samples.how.T, dtype=torch.int64)
    for x, y in _batches(net, samples):
        right += (net(x).cumsum(0).argmax(2) == y).sum(1).cpu()
    return (right.double() / len(samples)).tolist()


def accuracy_by_density(net: nn.Network, samples: Windows) -> list[Density]:
    """Accuracy with the firing probability of every pixel multiplied by each of SCALES, cut at 1."""
    found, images = [], samples.samples
    assert isinstance(images, ImageSet)
    for scale in SCALES:
        pixels = (images.images * scale).round().clamp(max=255).to(torch.uint8)
        scaled = dataclasses.replace(samples, samples=dataclasses.replace(images, images=pixels))
        labelled = predictions(net, _batches(net, scaled))
        right = sum(int((predicted == y).sum()) for predicted, y in labelled)
        found.append(Density(scale, scaled.rate(), right / len(scaled)))
    return found


@torch.no_grad()
def operations(net: nn.Network, samples: Windows) -> list[Operations]:
    """Synaptic operations of every synapse layer: each spike adds a weight to every neuron that it reaches.

    Behind pooling, where inputs are averages, each one that is not zero counts as a spike. The twin computes every
    product of its one step, whether or not an input is zero.
    """
    added: dict[int, float] = {}
    products: dict[int, int] = {}
    for x, _ in _batches(net, samples):
        passed: Tensor | Spikes = x
        passed = nn.Flatten()(passed) if net.flatten_input else passed
        for index, module in enumerate(net):
            after = module(passed)
            if isinstance(module, nn.Linear | nn.Conv2d):
                added[index] = added.get(index, 0.0) + _additions(module, passed)
                products[index] = after[0, 0].numel() * module.weight[0].numel()
            passed = after
    return [Operations(net.name(index), added[index] / len(samples), products[index]) for index in added]


def _additions(module: nn.Linear | nn.Conv2d, x: Tensor | Spikes) -> float:
    """Over all inputs that are not zero, the number of neurons that each reaches."""
    spikes = ((x.dense() if isinstance(x, Spikes) else x) != 0).sum((0, 1), dtype=torch.float64)
    if isinstance(module, nn.Linear):
        return float(spikes.sum()) * module.out_features
    ones = torch.ones_like(module.weight[:1], dtype=torch.float64)
    reached = torch.nn.functional.conv2d(spikes[None], ones, stride=module.stride, padding=module.padding)
    return float(reached.sum()) * len(module.weight)


def _batches(net: nn.Network, samples: Windows) -> Iterator[Batch]:
    """All samples as evaluation sees them, on the network's device."""
    return source(samples, None, samples.seed, next(net.parameters()).device, "samples").plain()
