"""What a trained network is worth: `evaluate`, and runs read back from their folders."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from stbp import nn
from stbp.config import Experiment
from stbp.data import DataSet
from stbp.nn import twin
from stbp.ops.spikes import Spikes
from stbp.train import runs

BATCH = 200  # samples labelled at once


@dataclass
class Run:
    """A finished training: what `summary.json` holds, the metrics of every epoch, and the network."""

    experiment: Experiment
    network: nn.Network
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    # Of the input in one step: C, H, W.
    shape: tuple[int, int, int]
    # Names of the classes, in the order of the outputs.
    classes: tuple[str, ...]

    @property
    def test_accuracy(self) -> float:
        """Share of test samples labelled rightly after the last epoch; NaN before the first one's end."""
        return self.history[-1]["test_accuracy"] if self.history else math.nan


@dataclass(frozen=True)
class Evaluation:
    """What a network made of a data set."""

    # Rows: true class; columns: predicted class; number of samples.
    confusion: Tensor
    classes: tuple[str, ...]

    @property
    def accuracy(self) -> float:
        """Share of samples labelled rightly."""
        return self.confusion.diagonal().sum().item() / max(1, int(self.confusion.sum()))

    def per_class(self) -> list[dict[str, Any]]:
        """Of every class: name, samples, recall and precision (None where nothing was, or was called, that class)."""
        rows = []
        for index, name in enumerate(self.classes):
            right, samples, called = (
                int(part)
                for part in (self.confusion[index, index], self.confusion[index].sum(), self.confusion[:, index].sum())
            )
            recall, precision = (right / n if n else None for n in (samples, called))
            rows.append({"class": name, "samples": samples, "recall": recall, "precision": precision})
        return rows


def evaluate(run: Run, test_set: DataSet, device: str = "auto") -> Evaluation:
    """Label the test set again, with the spikes that training measured with.

    Args:
        run: what `fit` returned.
        test_set: the samples.
    """
    net = run.network.to(device_called(device))
    classes = len(test_set.classes)
    confusion = torch.zeros(classes * classes, dtype=torch.int64)
    for predicted, y in predictions(net, run.experiment, test_set, torch.arange(len(test_set))):
        cell = (y * classes + predicted).cpu()
        confusion += torch.bincount(cell, minlength=classes * classes)
    return Evaluation(confusion.view(classes, classes), test_set.classes)


def load_run(folder: str | Path) -> Run:
    """The run in a folder, with the network of its last checkpoint.

    Raises:
        ValueError, FileNotFoundError: the folder holds no run, or a damaged one; the message says which.
    """
    experiment, saved, summary = runs.read(Path(folder))
    net = build_network(experiment, input_rate=1.0)
    net.load_state_dict(runs.part(saved, "network"))
    channels, height, width = saved.header["shape"]
    history, classes = saved.header["progress"]["history"], tuple(saved.header["classes"])
    return Run(experiment, net, history, summary, (channels, height, width), classes)


def build_network(experiment: Experiment, input_rate: float) -> nn.Network:
    """The experiment's network at its start; `input_rate` is the mean value of its input."""
    e = experiment
    if e.neuron == "relu":
        return twin.build(e.network, e.seed)
    return nn.build(
        e.network,
        e.decay,
        e.threshold,
        e.surrogate,
        e.width,
        e.gate,
        e.init,
        input_rate=input_rate,
        seed=e.seed,
        bias=e.bias,
    )


def batch(
    experiment: Experiment, samples: DataSet, ids: Int64[Tensor, " B"], epoch: int, device: torch.device
) -> tuple[Tensor | Spikes, Int64[Tensor, " B"]]:
    """Input and labels of the samples with these ids, on the device; epoch 0 is kept for evaluation."""
    return samples.window(ids, experiment, epoch, device), samples.labels[ids].to(device)


@torch.no_grad()
def predictions(
    net: nn.Network,
    experiment: Experiment,
    samples: DataSet,
    ids: Int64[Tensor, " N"],
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Predicted and true classes of the samples with these ids, a batch at a time, until `stop` says so."""
    device = next(net.parameters()).device
    for part in ids.split(BATCH):
        if stop():
            return
        x, y = batch(experiment, samples, part, 0, device)
        yield predict(read_out(net(x), experiment)), y


def read_out(o: Float[Tensor, "T B K"], experiment: Experiment) -> Float[Tensor, "T2 B K"]:
    """Those of the output spikes that count, as `Experiment.readout` says."""
    return o if experiment.readout is None else o[-experiment.readout :]


def predict(o: Float[Tensor, "T B K"]) -> Int64[Tensor, " B"]:
    """The class that fired most, `[T, B, K]` to `[B]`; of several, the first."""
    return o.sum(0).argmax(1)


def device_called(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda; got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch finds no CUDA device here; use cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
