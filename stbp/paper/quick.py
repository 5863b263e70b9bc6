"""`stbp reproduce --quick`: every experiment made tiny, on tiny data sets made from the digits that come with stbp."""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from stbp.config import FILELESS, Experiment
from stbp.data import load, write_events
from stbp.data.events.formats.record import empty
from stbp.files import CACHE

TRAIN, TEST = 40, 20  # samples
EVENTS = 200  # of a recording
SHORTEST = {"mnist-rows": 28, "mnist-rows-permuted": 28, "adding": 5, "recall": 8}  # windows of tasks over time


def tiny(experiment: Experiment) -> Experiment:
    """The same experiment over two steps, two epochs and two folds, so that it takes no time; it learns nothing.

    Tasks over time need more steps, and some draw samples by the thousand.
    """
    folds = {} if experiment.folds is None else {"folds": 2}
    T = SHORTEST.get(experiment.dataset, min(experiment.T, 2))
    size = 1000 if experiment.dataset in FILELESS else 20
    return experiment.replace(T=T, epochs=2, batch_size=size, **folds)


@contextmanager
def made_up() -> Iterator[Path]:
    """A folder for a while, with the stand-ins in `data`; in it is also the cache for what is decoded of them."""
    before = os.environ.get(CACHE)
    with TemporaryDirectory(prefix="stbp-quick-") as name:
        write_data(Path(name) / "data")
        os.environ[CACHE] = str(Path(name) / "cache")
        try:
            yield Path(name)
        finally:
            del os.environ[CACHE]
            if before is not None:
                os.environ[CACHE] = before


def write_data(folder: Path) -> None:
    """Stand-ins for MNIST, Fashion-MNIST, N-MNIST and the pedestrians, as `--data` takes them."""
    train, test = load("digits")
    for split, digits, n in (("train", train, TRAIN), ("test", test, TEST)):
        images, labels = digits.images[:n, 0].numpy(), digits.labels[:n].numpy()
        for name in ("mnist", "fashion-mnist"):
            prefix = folder / name / ("train" if split == "train" else "t10k")
            _write_idx(Path(f"{prefix}-images-idx3-ubyte"), _enlarged(images, 3, 28))
            _write_idx(Path(f"{prefix}-labels-idx1-ubyte"), labels.astype(np.uint8))
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            picture = folder / "pedestrian" / split / ("odd" if label % 2 else "even") / f"{number}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(picture)
            recording = folder / "n-mnist" / split.capitalize() / str(label) / f"{number + 1:05}.bin"
            recording.parent.mkdir(parents=True, exist_ok=True)
            write_events(recording, _events(_enlarged(image[None], 4, 34)[0], number))


def _enlarged(images: np.ndarray, times: int, size: int) -> np.ndarray:
    """Every pixel as a square, in the middle of a dark image of this size."""
    border = (size - times * images.shape[1]) // 2
    large = images.repeat(times, 1).repeat(times, 2)
    return np.pad(large, ((0, 0), (border, border), (border, border)))


def _write_idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">{1 + values.ndim}I", 0x0800 | values.ndim, *values.shape)
    path.write_bytes(header + values.tobytes())


def _events(image: np.ndarray, seed: int) -> np.ndarray:
    """A recording of 300 ms, in which bright pixels have most of the events."""
    random = np.random.default_rng(seed)
    pixels = random.choice(image.size, EVENTS, p=image.ravel() / image.sum(dtype=float))
    events = empty(EVENTS)
    events["t"] = np.sort(random.integers(0, 300_000, EVENTS))
    events["y"], events["x"] = np.unravel_index(pixels, image.shape)
    events["p"] = random.integers(0, 2, EVENTS)
    return events
