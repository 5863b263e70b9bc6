"""Training on simulated recordings, testing on real ones of other images.

Recording n of N-MNIST's training split shows MNIST's training image n - 1. A network that was trained on a simulated
recording of the same drawing would be tested on what it knows, so that simulated recordings with the numbers of the
first 1,000, of which the real ones are tested on, are never trained on; and the real ones that the simulation's
parameters were fitted to, the first 200, are not tested on.
"""

import logging
from pathlib import Path

import torch

from stbp.data.error import DataError
from stbp.data.events import source
from stbp.data.events.sets import NAME, EventSet, joined, load_events
from stbp.data.events.windows import EventWindows
from stbp.data.folds import Part

FOLDER = "mnist-simulated"
FITTED = 200
"""The camera's parameters were fitted to this many training recordings of N-MNIST, the first."""
SHOWN = 1000
"""Training recordings of N-MNIST that may be tested on, the first; their images are not trained on."""
COMMAND = "stbp data simulate {data}/mnist {folder} --train 1000 60000 --test 100 1100 --jitter-px 0.5 --jitter-ms 3"

_log = logging.getLogger(__name__)


def load_transfer(data: str | Path | None = None, cache: str | Path | None = None) -> tuple[Part, Part]:
    """Simulated training recordings that no real one shows, and the real ones that no parameter was fitted to.

    Args:
        data: the folder that holds `mnist-simulated/` and `n-mnist*/`; otherwise `default_folder()`.
        cache: as for `load_events`.

    Raises:
        DataError: one of the sets is not there, or nothing of it is left; the message names the command that makes it.
    """
    from stbp.data.downloads import default_folder  # what it imports is slow

    given = default_folder() if data is None else Path(data)
    folder = given.expanduser() / FOLDER
    if source.find(folder) is None:
        command = COMMAND.format(data=given, folder=folder)
        raise DataError(f"{folder}: no simulated recordings; make them with: {command}")
    return parted(load_events(folder, cache=cache)[0], *load_events(NAME, data, cache))


def parted(simulated: EventSet, train: EventSet, test: EventSet) -> tuple[Part, Part]:
    """The two parts, from simulated training recordings and real training and test recordings."""
    if simulated.classes != train.classes:
        raise DataError(f"{FOLDER} has the classes {simulated.classes}, the real recordings {train.classes}")
    trained = torch.tensor([number(name) > SHOWN for name in simulated.names], dtype=torch.bool)
    tested = torch.tensor(
        [FITTED < number(name) <= SHOWN for name in train.names] + [True] * len(test), dtype=torch.bool
    )
    if not trained.any():
        raise DataError(f"{FOLDER}: shows none of MNIST's training images behind the first {SHOWN:,}; simulate those")
    _log.info(
        "training on %d simulated recordings, testing on %d real ones of other images", trained.sum(), tested.sum()
    )
    real = EventWindows(joined(train, test))
    return Part(EventWindows(simulated), trained.nonzero().flatten()), Part(real, tested.nonzero().flatten())


def number(name: str) -> int:
    """Number of the recording `5/00001.bin` in its split, from 1; 0 for other names."""
    stem = name.rpartition("/")[2].partition(".")[0]
    return int(stem) if stem.isdecimal() else 0
