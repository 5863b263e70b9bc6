"""One trained network, measured: after fewer steps than it has, on sparser and denser input, and its operations.

None of this is in the paper. Measured on all test samples, with the spikes that training evaluates with.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table as Grid

from stbp.config import Experiment
from stbp.experiments import results
from stbp.experiments.registry import experiments

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from stbp.data.dataset import Windows
    from stbp.ops.spikes import Spikes
    from stbp.train.source import Batch

NAME = "inference"  # of `stbp reproduce`
COMMAND = f"stbp reproduce {NAME} --data DIR"
SCALES = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0)
NOT_COUNTED = (
    "Counted are the additions of weights alone: not the memory traffic that fetches them, not the updates of all "
    "neurons and biases in each of the T steps, not the state that is kept through T steps, and a twin that skips its "
    "zeros would save too."
)


def studied() -> tuple[Experiment, ...]:
    """The experiments whose network of seed 0 is measured."""
    return tuple(experiments()[name] for name in ("mnist-mlp-400-tuned", "mnist-cnn-tuned"))


def path(experiment: Experiment, folder: Path) -> Path:
    """Where the measurements of an experiment lie in a folder of results."""
    return folder / "beyond" / f"{results.file_name(experiment)}.json"


def read(experiment: Experiment, folders: Sequence[Path]) -> dict[str, Any] | None:
    """The measurements in the first folder that has them; None where they were not made, or of other settings."""
    there = [json.loads(at.read_text()) for at in (path(experiment, folder) for folder in folders) if at.exists()]
    return next((found for found in there if Experiment.of(**found["experiment"]) == experiment.replace(seed=0)), None)


def rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return `layer`, `synaptic` and `twin` operations of every layer, and last of all together."""
    layers = found["operations"]
    return [*layers, {"layer": "all", **{key: sum(layer[key] for layer in layers) for key in ("synaptic", "twin")}}]


def grids(found: dict[str, Any]) -> list[Grid]:
    """The measurements as tables for a terminal."""
    steps, density, layers = (Grid(*names, box=None, padding=(0, 2, 0, 0)) for names in _COLUMNS)
    for step, accuracy in enumerate(found["accuracy_by_step"], start=1):
        steps.add_row(f"{step}", f"{100 * accuracy:.2f}")
    for row in found["density"]:
        density.add_row(f"{row['scale']:g}", f"{100 * row['input_rate']:.1f}", f"{100 * row['accuracy']:.2f}")
    for row in rows(found):
        layers.add_row(
            row["layer"], f"{row['synaptic']:,.0f}", f"{row['twin']:,}", f"{row['synaptic'] / row['twin']:.2f}"
        )
    return [steps, density, layers]


_COLUMNS = (
    ("after step", "accuracy, %"),
    ("pixels fire, times", "mean input, %", "accuracy, %"),
    ("synapses", "synaptic operations", "multiply-accumulates of the twin", "ratio"),
)


def measure(folder: Path, data: str | Path | None = None, device: str = "auto") -> dict[str, Any]:
    """Return all three measurements of the run in a folder, as `results/beyond/` keeps them.

    Raises:
        ValueError: there is no finished run, or one of a network without spikes, of other samples than images, or of
            which some steps do not count.
    """
    from stbp.data.images import ImageSet
    from stbp.experiments.datasets import for_experiment
    from stbp.train import runs
    from stbp.train.evaluate import device_called, load_run

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
        "density": accuracy_by_density(run.network, test_set),
        "operations": operations(run.network, test_set),
        "trained_at": run.summary["commit"],
        "versions": runs.versions(),
        "commit": runs.commit(),
    }


def accuracy_by_step(net: "Module", samples: "Windows") -> list[float]:
    """Return the accuracy by the spikes counted up to each of the T steps; before the first spike the answer is 0."""
    import torch

    right = torch.zeros(samples.how.T, dtype=torch.int64)
    for x, y in _batches(net, samples):
        with torch.no_grad():
            right += (net(x).cumsum(0).argmax(2) == y).sum(1).cpu()
    return (right.double() / len(samples)).tolist()


def accuracy_by_density(net: "Module", samples: "Windows") -> list[dict[str, float]]:
    """Return `input_rate` and `accuracy` with firing probabilities times each `scale` of SCALES, at most 1."""
    import torch

    from stbp.data.images import ImageSet
    from stbp.train.evaluate import predictions

    found, images = [], samples.samples
    assert isinstance(images, ImageSet)
    for scale in SCALES:
        pixels = (images.images * scale).round().clamp(max=255).to(torch.uint8)
        scaled = dataclasses.replace(samples, samples=dataclasses.replace(images, images=pixels))
        right = sum(int((predicted == y).sum()) for predicted, y in predictions(net, _batches(net, scaled)))
        found.append({"scale": scale, "input_rate": scaled.rate(), "accuracy": right / len(scaled)})
    return found


def operations(net: "Module", samples: "Windows") -> list[dict[str, Any]]:
    """Return for every synapse `layer`, per sample, its `synaptic` operations and its non-spiking `twin`'s products.

    Each spike adds a weight to every neuron that it reaches. Behind pooling, where inputs are averages, each one that
    is not zero counts as a spike. The twin computes every product of its one step, whether or not an input is zero.
    """
    import torch

    from stbp.nn.record import describe, synapses, tapped

    added: dict[str, float] = {}
    products: dict[str, int] = {}

    def count(name: str, layer: Any, x: "Tensor | Spikes", currents: "Tensor") -> None:
        added[name] = added.get(name, 0.0) + _additions(layer, x)
        products[name] = currents[0, 0].numel() * layer.weight[0].numel()

    with torch.no_grad(), tapped(net, count, synapses(net)):
        for x, _ in _batches(net, samples):
            net(x)
    return [
        {"layer": describe(net, name), "synaptic": added[name] / len(samples), "twin": products[name]} for name in added
    ]


def _batches(net: "Module", samples: "Windows") -> "Iterator[Batch]":
    """All samples as evaluation sees them, on the network's device."""
    from stbp.train.evaluate import device_of
    from stbp.train.source import source

    return source(samples, None, samples.seed, device_of(net), "samples").plain()


def _additions(layer: Any, x: "Tensor | Spikes") -> float:
    """Return, summed over all inputs that are not zero, the number of neurons that each reaches."""
    import torch

    from stbp.ops.spikes import Spikes

    spikes = ((x.dense() if isinstance(x, Spikes) else x) != 0).sum((0, 1), dtype=torch.float64)
    if layer.weight.dim() == 2:
        return float(spikes.sum()) * len(layer.weight)
    ones = torch.ones_like(layer.weight[:1], dtype=torch.float64)
    reached = torch.nn.functional.conv2d(spikes[None], ones, stride=layer.stride, padding=layer.padding)
    return float(reached.sum()) * len(layer.weight)
