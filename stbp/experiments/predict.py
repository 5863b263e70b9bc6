"""Labels for files: images, and recordings of event cameras."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stbp.config import SCALED, SEQUENCES
from stbp.data.image_file import read_image
from stbp.data.images import encode
from stbp.ops.spikes import Spikes
from stbp.train.evaluate import Run, device_of, predict, read_out


@dataclass(frozen=True)
class Prediction:
    """Answer of a network for one file."""

    file: str
    # The class that fired most; of several, the first.
    label: str
    # Spikes of every class in the window.
    counts: dict[str, int]
    # Remark that the reader should know before trusting it; empty as a rule.
    remark: str


def predict_files(run: Run, files: Sequence[Path], invert: bool = False) -> list[Prediction]:
    """Label files of the kind that the network was trained on, images or recordings of an event camera.

    What it says of a file depends on its content and the run's seed alone.

    Args:
        invert: turn light and dark of images round, for dark strokes on a light ground.

    Raises:
        ValueError, FileNotFoundError: a file is missing or not of that kind; the message names it. The network has no
            spikes to count, or `invert` has no effect on recordings.
    """
    e = run.experiment
    if e.neuron == "relu":
        raise ValueError(f"{e.name} is a network without spikes; predict with its spiking twin")
    if e.dataset in SEQUENCES:
        raise ValueError(f"{e.name} was trained on sequences, which no file holds; predict with a run on images")
    recorded = e.step_ms is not None
    if recorded and invert:
        raise ValueError(f"--invert has no effect on the recordings that {e.name} labels; omit it")
    look = _recording if recorded else _image
    device = device_of(run.network)
    predictions = []
    for file, (x, remark) in [(file, look(run, file, invert)) for file in files]:
        with torch.no_grad():
            o = read_out(run.network(x.to(device)), e.training.readout)
        counts = o.sum(0)[0].to(torch.int64).tolist()
        if max(counts) == 0:
            remark = "no output neuron fired: the label is a guess"
        label = run.classes[int(predict(o)[0])]
        predictions.append(Prediction(str(file), label, dict(zip(run.classes, counts, strict=True)), remark))
    return predictions


def _image(run: Run, file: Path, invert: bool) -> tuple[Tensor | Spikes, str]:
    """The input `[T, 1, C, H, W]` for an image file, and a remark."""
    C, H, W = run.shape
    image = read_image(file, (C, H, W), invert)
    border = torch.cat([image[..., 0, :], image[..., -1, :], image[..., 0], image[..., -1]], -1)
    light = run.experiment.dataset not in SCALED and border.float().mean() > 127
    remark = "the ground is light; the built-in data sets have light strokes on dark: try --invert" if light else ""
    return encode(image[None], run.experiment.window, run.experiment.seed, 0, torch.zeros(1, dtype=torch.int64)), remark


def _recording(run: Run, file: Path, invert: bool) -> tuple[Tensor | Spikes, str]:
    """The input `[T, 1, 2, H, W]` for a recording, and a remark."""
    from stbp.data.events.windows import window_of_file

    _, H, W = run.shape
    x = window_of_file(file, run.experiment, (H, W))
    silent = x.density() == 0 if isinstance(x, Spikes) else not x.any()
    return x, "no events in the time that the network looks at" if silent else ""
