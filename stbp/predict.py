"""Labels for image files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stbp.data.image_file import read_image
from stbp.data.images import encode
from stbp.evaluation import Run, predict


@dataclass(frozen=True)
class Prediction:
    """What a network says of one file."""

    file: str
    # The class that fired most; of several, the first.
    label: str
    # Spikes of every class in the window.
    counts: dict[str, int]
    # What the reader should know before trusting it; empty as a rule.
    remark: str


def predict_files(run: Run, files: Sequence[Path], invert: bool = False) -> list[Prediction]:
    """Label image files; each one's spikes depend on its pixels and the run's seed alone.

    Args:
        invert: turn light and dark round, for dark strokes on a light ground.

    Raises:
        ValueError, FileNotFoundError: a file is missing or no image; the message names it. The network has no spikes
            to count.
    """
    if run.experiment.neuron == "relu":
        raise ValueError(f"{run.experiment.name} is a network without spikes; predict with its spiking twin")
    images = [read_image(file, run.shape, invert) for file in files]
    device = next(run.network.parameters()).device
    ids = torch.zeros(1, dtype=torch.int64, device=device)
    predictions = []
    for file, image in zip(files, images, strict=True):
        with torch.no_grad():
            o = run.network(encode(image[None].to(device), run.experiment, 0, ids))
        counts = o.sum(0)[0].to(torch.int64).tolist()
        label = run.classes[int(predict(o)[0])]
        predictions.append(
            Prediction(str(file), label, dict(zip(run.classes, counts, strict=True)), _remark(image, counts))
        )
    return predictions


def _remark(image: Tensor, counts: list[int]) -> str:
    if max(counts) == 0:
        return "no output neuron fired: the label is a guess"
    border = torch.cat([image[..., 0, :], image[..., -1, :], image[..., 0], image[..., -1]], -1)
    if border.float().mean() > 127:
        return "the ground is light; the built-in data sets have light strokes on dark: try --invert"
    return ""
