"""The figures of the page that show samples: Fig. 4, an image's spikes through a network, and Fig. 5, event frames."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from markupsafe import Markup

from stbp.data import DataSet
from stbp.data.error import DataError
from stbp.experiments import registry
from stbp.experiments.datasets import for_experiment
from stbp.ops.spikes import Spikes
from stbp.paper.page import figures
from stbp.paper.quantized import Quantized, dequantized
from stbp.train.evaluate import build_network

CLASS, PATCH = 9, 5  # Fig. 4 shows a 9, and the 5 x 5 pixels in its middle


@dataclass
class Seen:
    """Panels of Fig. 4 and Fig. 5, and why some are missing."""

    digit: list[Markup] = field(default_factory=list)
    events: list[Markup] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    # Which image and which recording are shown.
    image: str = ""
    recording: str = ""


def look(quantized: Quantized | None, data: Path | None) -> Seen:
    """Draw what the data sets at hand allow; nothing is downloaded."""
    seen = Seen()
    if data is None and not os.environ.get("STBP_DATA"):
        seen.missing.append("Fig. 4 and 5 show samples, and no data was named: add --data DIR")
        return seen
    if quantized is None:
        seen.missing.append("Fig. 4 shows a network's spikes, and none was named: add --network RUN")
    else:
        try:
            _digit(seen, quantized, *for_experiment(quantized.experiment, data))
        except DataError as error:
            seen.missing.append(f"Fig. 4: {error}")
    try:
        _events(seen, data)
    except DataError as error:
        seen.missing.append(f"Fig. 5: {error}")
    return seen


def _digit(seen: Seen, quantized: Quantized, train: DataSet, test: DataSet) -> None:
    e = quantized.experiment
    sample = int((test.labels == CLASS).nonzero()[0])
    x = test.window(torch.tensor([sample]), 0, torch.device("cpu"))
    image = test.picture(sample)[0].numpy()
    before, after = (
        [trace.o[:, 0].numpy() for trace in net.record(x)]
        for net in (build_network(e, train.rate()), dequantized(quantized))
    )
    pixels = (x.dense() if isinstance(x, Spikes) else x)[:, 0, 0].numpy()
    corner = image.shape[0] // 2 - PATCH // 2
    middle = pixels[:, corner : corner + PATCH, corner : corner + PATCH].reshape(len(pixels), -1)
    seen.image = f"test image {sample} of {e.dataset}"
    seen.digit = [
        figures.picture("fig4-image", "the image, and its middle", image),
        figures.raster("fig4-input", f"{PATCH * PATCH} inputs, the middle pixels", middle, "pixel"),
        figures.raster("fig4-hidden-before", "hidden layer before training", before[0], "neuron"),
        figures.raster("fig4-hidden-after", "hidden layer after training", after[0], "neuron"),
        figures.raster("fig4-before", "output before training", before[-1], "class", CLASS),
        figures.raster("fig4-after", "output after training", after[-1], "class", CLASS),
    ]


def _events(seen: Seen, data: Path | None) -> None:
    e = registry.experiment("nmnist-mlp").replace(shift=0)
    _, test = for_experiment(e, data)
    sample = len(test) // 2
    x = test.window(torch.tensor([sample]), 0, torch.device("cpu"))
    frames = (x.dense() if isinstance(x, Spikes) else x)[:, 0].numpy()
    seen.recording = f"test recording {sample}, a {test.classes[int(test.labels[sample])]}"
    assert e.step_ms is not None
    seen.events = [figures.event_frames("fig5", frames, e.step_ms)]
