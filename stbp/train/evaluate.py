"""Accuracy of trained networks, `evaluate`, and runs read back from their folders."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from stbp import nn
from stbp.config import Experiment, Own
from stbp.nn import twin
from stbp.nn.record import evaluating
from stbp.train import runs
from stbp.train.source import Batch, Given, source


@dataclass
class Run:
    """A finished training: what `summary.json` holds, the metrics of every epoch, and the network."""

    settings: Experiment | Own
    # The module that was trained: of an experiment what `stbp.nn.build` made.
    network: Any
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    # Shape of the input in one step, such as C, H, W.
    shape: tuple[int, ...]
    # Names of the classes, in the order of the outputs.
    classes: tuple[str, ...]

    @property
    def experiment(self) -> Experiment:
        """The experiment that was trained.

        Raises:
            ValueError: the run is one of a network of your own.
        """
        if isinstance(self.settings, Own):
            raise ValueError(
                f"this needs the run of an experiment; it is one of a network of your own, {self.settings.name}"
            )
        return self.settings

    @property
    def test_accuracy(self) -> float:
        """Share of test samples labelled rightly after the last epoch; NaN before the first one's end."""
        return self.history[-1]["test_accuracy"] if self.history else math.nan


@dataclass(frozen=True)
class Evaluation:
    """The answers of a network to a data set, counted."""

    # Rows: true class; columns: predicted class; number of samples.
    confusion: Tensor
    classes: tuple[str, ...]

    @property
    def accuracy(self) -> float:
        """Share of samples labelled rightly."""
        return self.confusion.diagonal().sum().item() / max(1, int(self.confusion.sum()))

    def per_class(self) -> list[dict[str, Any]]:
        """Name, samples, recall and precision of each class; None where no sample is, or is called, of that class."""
        rows = []
        for index, name in enumerate(self.classes):
            right, samples, called = (
                int(part)
                for part in (self.confusion[index, index], self.confusion[index].sum(), self.confusion[:, index].sum())
            )
            recall, precision = (right / n if n else None for n in (samples, called))
            rows.append({"class": name, "samples": samples, "recall": recall, "precision": precision})
        return rows


def evaluate(run: Run, test: Given, device: str = "auto") -> Evaluation:
    """Label the test samples again, with the spikes that training measured with.

    Args:
        run: what `fit` returned.
        test: the samples, as for `stbp.train.fit.fit`.
    """
    where = device_called(device)
    settings, classes = run.settings, len(run.classes)
    run.network.to(where)
    how = settings.window if isinstance(settings, Own) else None
    samples = source(test, how, settings.training.seed, where, "test")
    confusion = torch.zeros(classes * classes, dtype=torch.int64)
    for predicted, y in predictions(run.network, samples.plain(), settings.training.readout):
        cell = (y * classes + predicted).cpu()
        confusion += torch.bincount(cell, minlength=classes * classes)
    return Evaluation(confusion.view(classes, classes), run.classes)


def load_run(folder: str | Path, net: torch.nn.Module | None = None) -> Run:
    """The run in a folder, with the weights of its last checkpoint.

    Args:
        net: for a run of a network of your own: one like it, whose weights are replaced.

    Raises:
        ValueError, FileNotFoundError: the folder holds no run, or a damaged one, or one of another network; the message
            says which.
    """
    folder = Path(folder)
    settings, saved, summary = runs.read(folder)
    if isinstance(settings, Experiment):
        if net is not None:
            raise ValueError(
                f"net has no effect on {folder}, the run of an experiment, which says its network; omit it"
            )
        net = build_network(settings, input_rate=1.0)
    elif net is None:
        raise ValueError(
            f"{folder} is the run of a network of your own, {settings.name}; make one like it: load_run(folder, net)"
        )
    saved.load(net, "network")
    shape, classes = tuple(saved.header["shape"]), tuple(saved.header["classes"])
    return Run(settings, net, saved.header["progress"]["history"], summary, shape, classes)


def build_network(experiment: Experiment, input_rate: float) -> nn.Network:
    """The experiment's network at its start; `input_rate` is the mean value of its input."""
    e = experiment
    if e.neuron == "relu":
        return twin.build(e.network, e.seed)
    return nn.build(
        e.network, **vars(e.neurons), init=e.model.init, input_rate=input_rate, seed=e.seed, bias=e.model.bias
    )


def predictions(
    net: torch.nn.Module,
    batches: Iterable[Batch],
    readout: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Predicted and true classes of each batch, in evaluation mode, until `stop` says so."""
    for x, y in batches:
        if stop():
            return
        with torch.no_grad(), evaluating(net):
            o = net(x)
        yield predict(read_out(o, readout)), y


def read_out(o: Float[Tensor, "T B K"], readout: int | None) -> Float[Tensor, "T2 B K"]:
    """Those of the output spikes that count: the last `readout` steps, or all."""
    return o if readout is None else o[-readout:]


def predict(o: Float[Tensor, "T B K"]) -> Int64[Tensor, " B"]:
    """The class that fired most, `[T, B, K]` to `[B]`; of several, the first."""
    return o.sum(0).argmax(1)


def device_of(net: torch.nn.Module) -> torch.device:
    """Return the device of a network's parameters."""
    return next(net.parameters()).device


def device_called(name: str) -> torch.device:
    """The device that `auto`, `cpu` or `cuda` stands for.

    Raises:
        ValueError: another name, or there is no CUDA device.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda; got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch finds no CUDA device here; use cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
