"""Recordings of event cameras as data sets: of a tree, in any formats, or of HDF5 files as Spiking Heidelberg Digits'.

Times count from a recording's first event. The events are kept in a store (`stbp.data.events.store`), one a split.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from stbp.data.error import DataError, NotInstalledError
from stbp.data.events import store
from stbp.data.events.formats import shd
from stbp.data.events.formats.reading import Recording, read_quietly
from stbp.data.events.formats.record import Repairs
from stbp.data.events.sets import EventSet, event_set, stores_folder
from stbp.data.events.source import Recording as Member
from stbp.data.folder.tree import Split, Tree, check_kept, told

LONGEST = 1 << 32
"""Microseconds, 71 minutes, that a recording must be shorter than."""
FROM_FILES = "from the files"
Size = tuple[int, int]
"""Columns, rows."""

_log = logging.getLogger(__name__)


class Fact(NamedTuple):
    """A recording as it was found: what is known of it when its events are stored, or why they are not."""

    name: str
    label: str
    format: str = ""
    # Size of the sensor as the file says it, and the extent that the events reach.
    sensor: Size | None = None
    extent: Size | None = None
    duration_us: int = 0
    repairs: Repairs | None = None
    fault: str = ""


@dataclass(frozen=True, eq=False)
class Recorded:
    """The recordings of every split, and what their files told."""

    sets: tuple[EventSet, ...]
    # Columns and rows, before they are scaled down.
    sensor: Size
    # Durations of the training recordings in microseconds.
    longest_us: int
    median_us: int


def read_tree(tree: Tree, sensor: Size | None = None, downscale: int = 1, cache: Path | None = None) -> Recorded:
    """The recordings of a tree, by class and file name.

    Files that are damaged, no recordings, or lie elsewhere than in the folder of a class are skipped; a warning counts
    them and says why.

    Args:
        sensor: columns and rows; None takes what the files say, or else the largest coordinates.
        downscale: a square of this many columns and rows of the sensor becomes one pixel.
        cache: the folder for stores; by default `events` in the user's cache folder.

    Raises:
        DataError: a class loses its last recording, the files tell of several sensors or events lie off it, or a
            recording is longer than 71 minutes. NotInstalledError: a format needs a library that is not there.
    """
    return _read([_origin(split, downscale) for split in tree.splits], tree.classes, sensor, downscale, cache)


def read_hdf5(
    files: Sequence[Path], sensor: Size | None = None, downscale: int = 1, cache: Path | None = None
) -> Recorded:
    """The recordings of HDF5 files as Spiking Heidelberg Digits', a file a split; the rest as `read_tree`."""
    return _read([_hdf5(file, downscale) for file in files], None, sensor, downscale, cache)


def prepared(events: np.ndarray, downscale: int) -> np.ndarray:
    """The events as they are stored: times from the first one on, squares of the sensor as one pixel."""
    events = events.copy()
    events["t"] -= events["t"][:1].sum()
    events["x"] //= downscale
    events["y"] //= downscale
    return events


def fact_of(recording: Recording, name: str, label: str) -> Fact:
    """Facts known of a recording.

    Raises:
        DataError: nothing of it could be read, or it is too long.
    """
    events = recording.events
    if recording.repairs and not len(events):
        why = ", ".join(f"{n:,} {what}" for what, n in recording.repairs.items())
        raise DataError(f"{name}: no event could be read ({why}); use an undamaged copy")
    extent = (int(events["x"].max()) + 1, int(events["y"].max()) + 1) if len(events) else None
    duration = int(events["t"][-1] - events["t"][0]) if len(events) else 0
    if duration >= LONGEST:
        raise DataError(f"{name}: {duration / 60e6:.0f} minutes long, more than the 71 allowed; cut the recording")
    return Fact(name, label, recording.format, recording.sensor, extent, duration, recording.repairs)


def about(facts: Sequence[Fact]) -> dict[str, Any]:
    """Facts that are remembered of the recordings of a split, fit for JSON."""
    good = [fact for fact in facts if not fact.fault]
    faults = [fact for fact in facts if fact.fault]
    sensors = {fact.sensor: fact.name for fact in reversed(good) if fact.sensor}
    reach = {
        axis: max(((fact.extent[axis], fact.name) for fact in good if fact.extent), default=(1, "")) for axis in (0, 1)
    }
    durations = [fact.duration_us for fact in good] or [0]
    return {
        "formats": dict(Counter(fact.format for fact in good)),
        "sensors": [[*size, name] for size, name in sensors.items()],
        "reach": [reach[0], reach[1]],
        "longest_us": max(durations),
        "median_us": int(np.median(durations)),
        "repairs": dict(sum((fact.repairs or Counter() for fact in good), Counter())),
        "damaged": [fact.name for fact in faults],
        "first_fault": faults[0].fault if faults else "",
    }


def sensor_of(told: Sequence[dict[str, Any]], given: Size | None, where: Path) -> tuple[Size, str]:
    """Columns and rows of the sensor, and where they are known from, from what `about` says of every split.

    Raises:
        DataError: the files tell of several sensors, or events lie off the sensor.
    """
    (columns, of_x), (rows, of_y) = (max(tuple(one["reach"][axis]) for one in told) for axis in (0, 1))
    headers = {(width, height): name for one in reversed(told) for width, height, name in one["sensors"]}
    if given is None and len(headers) > 1:
        seen = " and ".join(f"{w}x{h} ({name})" for (w, h), name in list(headers.items())[:2])
        raise DataError(f"{where}: recordings of several sensors, {seen}; take one of them away, or give --sensor")
    size, why = (given, "given") if given else (next(iter(headers), (columns, rows)), FROM_FILES)
    if not given and not headers:
        why = "a guess: the largest coordinates; --sensor COLUMNSxROWS says better"
    if columns > size[0] or rows > size[1]:
        raise DataError(
            f"{where}: events reach {columns} columns ({of_x}) and {rows} rows ({of_y}), the sensor is"
            f" {size[0]}x{size[1]} ({why}); give its size, columns x rows, with --sensor"
        )
    return size, why


def _read(
    origins: Sequence[store.Origin],
    classes: tuple[str, ...] | None,
    given: Size | None,
    downscale: int,
    cache: Path | None,
) -> Recorded:
    stored = [store.load(store.built(origin, stores_folder(cache), torch.get_num_threads())) for origin in origins]
    where = origins[0].path.parent
    for origin, split in zip(origins, stored, strict=True):
        _warn(origin.path, split)
    size, why = sensor_of([split.about for split in stored], given, where)
    (_log.info if given or why == FROM_FILES else _log.warning)("%s: sensor %dx%d, %s", where, *size, why)
    names = classes or tuple(sorted({label for split in stored for label in split.classes}, key=_rank))
    unseen = sorted(set(names) - set(stored[0].classes), key=_rank)
    if unseen:
        raise DataError(f"{origins[-1].path}: has class {unseen[0]!r}, which no training recording has")
    width, height = (-(-pixels // downscale) for pixels in size)
    sets = tuple(event_set(split, names, (height, width)) for split in stored)
    return Recorded(sets, size, stored[0].about["longest_us"], stored[0].about["median_us"])


def _rank(label: str) -> tuple[bool, int, str]:
    return not label.isdecimal(), int(label) if label.isdecimal() else 0, label


def _warn(path: Path, split: store.Stored) -> None:
    found = split.about
    if found["skipped"]:
        count = sum(map(len, found["skipped"].values()))
        first = f"; the first: {found['first_fault']}" if found["first_fault"] else ""
        total = count + len(split.arrays["labels"])
        _log.warning("%s: skipped %d of %d files: %s%s", path, count, total, told(found["skipped"]), first)
    if found["repairs"]:
        _log.warning("%s: %s", path, ", ".join(f"{n:,} {what}" for what, n in found["repairs"].items()))


def _origin(split: Split, downscale: int) -> store.Origin:
    members = [Member(sample.label, sample.path.name, sample.name) for sample in split.samples]

    def stamp() -> list[tuple[str, int, int]]:
        return [(sample.name, *_status(sample.path)) for sample in split.samples]

    def remember(facts: list[Fact]) -> dict[str, Any]:
        found = about(facts)
        skipped = defaultdict(list, {why: list(names) for why, names in split.skipped.items()})
        if found["damaged"]:
            skipped["damaged or not readable"] += found["damaged"]
        good = (fact.label for fact in facts if not fact.fault)
        check_kept(split, good, split.classes, skipped)
        return found | {"skipped": dict(skipped)}

    def read(member: Member) -> Recording:
        return read_quietly(split.folder / member.member)

    @contextmanager
    def opened() -> Iterator[store.Source]:
        yield store.Source(members, [], partial(_decode, read, downscale), remember)

    key = {"decoder": "any", "shape": None, "downscale": downscale, "skipped": split.skipped}
    return store.Origin(split.folder, key, stamp, opened, "<u2")


def _hdf5(file: Path, downscale: int) -> store.Origin:
    @contextmanager
    def opened() -> Iterator[store.Source]:
        repairs: Repairs = Counter()
        found = shd.read(file, repairs)
        members = [Member(str(label), f"{i:06}", str(i)) for i, label in enumerate(found.labels.tolist())]

        def read(member: Member) -> Recording:
            return Recording(found[int(member.member)], "SHD", (shd.CHANNELS, 1), Counter())

        def remember(facts: list[Fact]) -> dict[str, Any]:
            return about(facts) | {"skipped": {}, "repairs": dict(repairs)}

        yield store.Source(members, [], partial(_decode, read, downscale), remember)

    key = {"decoder": "shd", "shape": None, "downscale": downscale}
    return store.Origin(file, key, lambda: [(file.name, *_status(file))], opened, "<u2")


def _status(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _decode(read: Callable[[Member], Recording], downscale: int, members: Sequence[Member]) -> store.Piece:
    facts: list[Fact] = []
    kept: list[Member] = []
    events: list[np.ndarray] = []
    for member in members:
        name = f"{member.label}/{member.name}"
        try:
            recording = read(member)
            fact = fact_of(recording, name, member.label)
        except NotInstalledError:
            raise
        except DataError as error:
            facts.append(Fact(name, member.label, fault=str(error)))
            continue
        facts.append(fact)
        kept.append(member)
        events.append(prepared(recording.events, downscale))
    types = {"t": "u4", "x": "u2", "y": "u2", "p": "u1"}
    columns = {
        name: np.concatenate([np.empty(0, d), *(e[name].astype(d) for e in events)]) for name, d in types.items()
    }
    return store.Piece(columns | {"length": np.array([len(e) for e in events], np.int64)}, kept, facts)
