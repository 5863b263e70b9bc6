"""Spiking Heidelberg Digits and Spiking Speech Commands (HDF5), read with h5py: `pip install 'stbp[events]'`.

No camera: 700 channels of an artificial cochlea, so x is the channel, y is 0 and p is 1. A file holds many recordings:
`spikes/times` (lists of floats, in seconds), `spikes/units` (lists of channels) and `labels`. Source: B. Cramer, Y.
Stradmann, J. Schemmel, F. Zenke, The Heidelberg Spiking Data Sets for the Systematic Evaluation of Spiking Neural
Networks, IEEE TNNLS 33, 2744-2757, 2022; https://compneuro.net/posts/2019-spiking-heidelberg-digits/.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from stbp.data.error import DataError, NotInstalledError
from stbp.data.events.formats.record import Repairs, empty

MAGIC = b"\x89HDF\r\n\x1a\n"
CHANNELS = 700
LONGEST = 3_600
"""Seconds that a spike's time may be: real recordings last about one."""
MOST_RECORDINGS = 1 << 20
MOST_SPIKES = 1 << 28
"""More than ten times Speech Commands, each. The file's own numbers are not trusted: they cost no bytes."""


@dataclass(frozen=True, eq=False)
class Recordings:
    """All recordings of a file, one behind the other.

    Attributes:
        events: `[N]` of `EVENT`, each recording in the order of time.
        offsets: `[M + 1]`, int64; recording `i` is `events[offsets[i]:offsets[i + 1]]`.
        labels: `[M]`, int64.
    """

    events: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> np.ndarray:
        begin, end = self.offsets[i : i + 2]
        return self.events[begin:end]


def read(path: Path, repairs: Repairs | None = None) -> Recordings:
    """All recordings of a file of Spiking Heidelberg Digits or Spiking Speech Commands.

    Args:
        path: `shd_train.h5` and the like, unpacked.
        repairs: where to count recordings whose spikes had to be sorted, which no description forbids.

    Raises:
        DataError: h5py is not installed, the file is damaged or of another layout, or a channel or a time is out of
            range; it names recording and spike.
    """
    try:
        import h5py
    except ImportError:
        raise NotInstalledError(f"{path}: HDF5 needs h5py; install it with: pip install 'stbp[events]'") from None
    try:
        with h5py.File(path, "r") as file:
            times, units, labels = (
                _dataset(h5py, file, name, path) for name in ("spikes/times", "spikes/units", "labels")
            )
            if not len(times) == len(units) == len(labels) <= MOST_RECORDINGS:
                raise DataError(
                    f"{path}: {len(times):,} lists of times, {len(units):,} of units and {len(labels):,} labels; must"
                    f" be equally many, at most {MOST_RECORDINGS:,}"
                )
            seconds, counts = _flat(times, path)
            channels, others = _flat(units, path)
            labels = labels[:].astype(np.int64)
    except DataError:
        raise
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, MemoryError) as error:  # as HDF5's faults arrive
        raise DataError(f"{path}: not a whole HDF5 file ({error}); use an undamaged copy") from error
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    if not np.array_equal(counts, others):
        i = int(np.flatnonzero(counts != others)[0])
        raise DataError(f"{path}: recording {i} has {counts[i]} times and {others[i]} units; use an undamaged copy")
    return Recordings(_events(seconds, channels, offsets, path, repairs), offsets, labels)


def _dataset(h5py: Any, file: Any, name: str, path: Path) -> Any:
    found = file.get(name)
    if not isinstance(found, h5py.Dataset) or found.ndim != 1:
        raise DataError(f"{path}: no list {name} in it; only the layout of Spiking Heidelberg Digits is known")
    kind = h5py.check_vlen_dtype(found.dtype) if name != "labels" else found.dtype
    if kind is None or kind.kind not in ("iu" if name != "spikes/times" else "f"):
        raise DataError(f"{path}: {name} holds {found.dtype}; only the layout of Spiking Heidelberg Digits is known")
    return found


def _flat(lists: Any, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The values of all lists, one behind the other, and how many each has."""
    parts: list[np.ndarray] = []
    counts: list[int] = []
    total = 0
    for begin in range(0, len(lists), 256):
        some = lists[begin : begin + 256]
        counts += map(len, some)
        total += sum(map(len, some))
        if total > MOST_SPIKES:
            raise DataError(f"{path}: more than the {MOST_SPIKES:,} spikes allowed; use an undamaged copy")
        parts += some.tolist()
    return np.concatenate(parts) if parts else np.empty(0), np.array(counts, np.int64)


def _events(
    seconds: np.ndarray, channels: np.ndarray, offsets: np.ndarray, path: Path, repairs: Repairs | None
) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        wrong = np.flatnonzero(~((seconds >= 0) & (seconds < LONGEST)) | (channels < 0) | (channels >= CHANNELS))
    if len(wrong):
        i = int(wrong[0])
        recording = int(np.searchsorted(offsets, i, side="right")) - 1
        raise DataError(
            f"{path}: recording {recording}, spike {i - offsets[recording]}: channel {channels[i]} at {seconds[i]} s;"
            f" must be 0..{CHANNELS - 1} and 0..{LONGEST} s; use an undamaged copy"
        )
    events = empty(len(seconds))
    events["t"] = np.rint(seconds.astype(np.float64) * 1e6)
    events["x"], events["y"], events["p"] = channels, 0, 1
    back = np.flatnonzero(np.diff(events["t"]) < 0) + 1
    unsorted = np.unique(np.searchsorted(offsets, np.setdiff1d(back, offsets), side="right")) - 1
    bounds = list(pairwise(offsets.tolist()))
    for recording in unsorted.tolist():
        part = events[slice(*bounds[recording])]
        part[:] = part[np.argsort(part["t"], kind="stable")]
    if repairs is not None and len(unsorted):
        repairs["recordings sorted by time"] += len(unsorted)
    return events
