"""Experiments on the user's own data: their sets, and the fields that the data decide."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from stbp.config import Experiment, default
from stbp.data.dataset import Samples
from stbp.data.error import DataError
from stbp.data.events.windows import EventWindows
from stbp.data.folder import load
from stbp.data.folds import Part
from stbp.data.images import ImageSet

_log = logging.getLogger(__name__)
# Fields that have an effect on recordings alone, and on image files or images alone.
_RECORDED = ("counts", "jitter_ms", "step_ms", "sensor", "downscale")
_IMAGES = ("encoding", "elastic", "image_size")


def read(experiment: Experiment, data: str | Path | None) -> tuple[Experiment, Sequence[Samples]]:
    """The experiment, with sensor and step as the data have them, and its sets: one where none is a test set.

    Raises:
        DataError: as `stbp.data.folder.load`; no folder is named. ValueError: a field has no effect on such data.
    """
    if data is None or not str(data):
        raise DataError(f"folder needs --data PATH, {load.HOLDS}")
    found = load.look(Path(data).expanduser())
    e = experiment
    if load.kind(found) == "images":
        _check_unused(e, _RECORDED, found)
        if e.neuron == "relu" and e.encoding != "static":
            raise ValueError(f"neuron relu needs encoding static with images; got {e.encoding}")
    else:
        _check_unused(e, _IMAGES, found)
    columns, rows = map(int, (e.sensor or "0x0").split("x"))
    sensor = None if e.sensor is None else (columns, rows)
    if e.test_share is not None and (e.folds is not None or load.has_test_set(found)):
        raise ValueError(
            f"test_share has no effect with folds or a test set that is given; omit it; got {e.test_share}"
        )
    own = load.read(found, image_size=e.image_size, sensor=sensor, downscale=e.downscale)
    fields: dict[str, Any] = {}
    if own.recorded is not None:
        fields["sensor"] = "x".join(map(str, own.recorded.sensor))
        fields["step_ms"] = e.step_ms or _step_ms(own.recorded.longest_us, own.recorded.median_us, e.T)
    return e.replace(**fields), tuple(s if isinstance(s, ImageSet) else EventWindows(s) for s in own.sets)


def divided(whole: Samples, share: float | None, seed: int) -> tuple[Part, Part]:
    """Training and test samples of a set that has no test part: a share of each class, drawn by the seed."""
    share = share or load.TEST_SHARE
    train, test = load.draw(whole.labels, share, seed)
    counts = torch.stack([whole.labels[ids].bincount(minlength=len(whole.classes)) for ids in (train, test)]).T.tolist()
    told = ", ".join(f"{name} {a}+{b}" for name, (a, b) in list(zip(whole.classes, counts, strict=True))[:10])
    _log.warning(
        "no test set is given: %g %% of each class are drawn for it by seed %d: %d training and %d test samples (%s%s)",
        100 * share, seed, len(train), len(test), told, ", ..." if len(counts) > 10 else "",
    )  # fmt: skip
    return Part(whole, train), Part(whole, test)


def _step_ms(longest_us: int, median_us: int, T: int) -> float:
    """Milliseconds of a step, so that all events of the longest recording lie within T steps."""
    step_us = longest_us // T + 1
    _log.warning(
        "step_ms is %g: %d steps hold the longest training recording, %.1f ms (median %.1f); --step-ms sets another",
        step_us / 1000, T, longest_us / 1000, median_us / 1000,
    )  # fmt: skip
    return step_us / 1000


def _check_unused(experiment: Experiment, names: tuple[str, ...], found: load.Found) -> None:
    for name in names:
        value = getattr(experiment, name)
        if value != default(name):
            raise ValueError(f"{name} has no effect on {load.describe(found)}; omit it; got {value!r}")
