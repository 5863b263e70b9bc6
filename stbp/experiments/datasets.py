"""The data sets of experiments by name."""

import logging
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import torch

from stbp.config import FILELESS, RECORDED, SEQUENCES, Experiment
from stbp.data import folds, sequences
from stbp.data.dataset import Samples, Windows
from stbp.data.error import DataError
from stbp.data.images import ImageSet
from stbp.data.sets import NAMES, load
from stbp.experiments import own_data

N_MNIST = (60_000, 10_000)  # recordings of the full set

_log = logging.getLogger(__name__)


class Ready(NamedTuple):
    """An experiment with the fields that its data decide, and its training and test set."""

    experiment: Experiment
    train: Windows
    test: Windows


def for_experiment(experiment: Experiment, data: str | Path | None = None) -> tuple[Windows, Windows]:
    """The training and the test set of an experiment; `data` and errors as for `load` and `load_events`."""
    return ready(experiment, data)[1:]


def ready(experiment: Experiment, data: str | Path | None = None) -> Ready:
    """As `for_experiment`; sensor and length of a step are completed where they are left to the user's own data."""
    asked, seed = experiment.data, experiment.training.seed
    if asked.dataset == "folder":
        experiment, sets = own_data.read(experiment, data)
    else:
        sets = _splits(experiment, data)
    if asked.folds is not None and asked.fold is not None:
        sets = folds.split(sets[0] if len(sets) == 1 else _pooled(*sets), asked.folds, asked.fold)
    elif len(sets) == 1:
        sets = own_data.divided(sets[0], asked.test_share, seed)
    train, test = (Windows(samples, experiment.window, seed) for samples in sets)
    return Ready(experiment, train, test)


def _splits(experiment: Experiment, data: str | Path | None) -> tuple[Samples, Samples]:
    """Training and test samples as they are published."""
    if experiment.dataset in FILELESS and data is not None:
        raise DataError(f"{experiment.dataset} needs no files; omit --data, got {str(data)!r}")
    if experiment.dataset in SEQUENCES:
        return _sequences(experiment, data)
    if experiment.dataset == "mnist-simulated":
        from stbp.camera.mnist_simulated import load_transfer

        return load_transfer(data)
    if experiment.dataset in RECORDED:
        from stbp.data.events.sets import load_events
        from stbp.data.events.windows import EventWindows

        train, test = load_events(experiment.dataset, data)
        if (len(train), len(test)) != N_MNIST:
            warn_of_part(experiment.dataset, len(train), len(test))
        return EventWindows(train), EventWindows(test)
    if experiment.dataset in NAMES:
        return load(experiment.dataset, data, experiment.image_size)
    # by convention, so that a new data set is one file and its name
    return import_module(f"stbp.data.{experiment.dataset.replace('-', '_')}").read(data)


def _sequences(experiment: Experiment, data: str | Path | None) -> tuple[Samples, Samples]:
    name = experiment.dataset
    if name.startswith("mnist-rows"):
        train, test = load("mnist", data)
        return sequences.rows(train, name.endswith("permuted")), sequences.rows(test, name.endswith("permuted"))
    return sequences.adding(experiment.T) if name == "adding" else sequences.recall(experiment.T)


def _pooled(train: Samples, test: Samples) -> Samples:
    """Training and test samples as one set, in this order."""
    if isinstance(train, ImageSet) and isinstance(test, ImageSet):
        images, labels = torch.cat([train.images, test.images]), torch.cat([train.labels, test.labels])
        return ImageSet(images, labels, train.classes)
    from stbp.data.events.sets import joined
    from stbp.data.events.windows import EventWindows

    assert isinstance(train, EventWindows)
    assert isinstance(test, EventWindows)
    return EventWindows(joined(train.recordings, test.recordings))


@cache  # once for a process, however often it loads the set
def warn_of_part(name: str, train: int, test: int) -> None:
    """Log that a set has so many training and test recordings, fewer than were published."""
    counts = f"{train:,} training and {test:,} test recordings"
    _log.warning("%s: a part of the set, %s of %s and %s", name, counts, *map("{:,}".format, N_MNIST))
