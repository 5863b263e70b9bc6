"""Contents of a recording, an archive, a file of arrays or a folder, and what would be trained on.

A folder is looked at by the same functions as training reads it with. All files are counted; of many, `MEASURED` are
read, spread evenly, to measure them and to find the damaged ones.
"""

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from zipfile import ZipFile

import numpy as np

from stbp.data.error import DataError, NotInstalledError
from stbp.data.events import archive, source
from stbp.data.events.formats import reading, shd
from stbp.data.folder import arrays, images, load, recordings, tree
from stbp.data.idx import read_images, read_labels
from stbp.data.image_file import read_image

ENDINGS = frozenset({".bin", ".aedat", ".aedat4", ".dat", ".raw"})
"""Files with these endings are taken for recordings in archives and where there are no folders of classes."""
MEASURED = 2_000
"""Samples of a set that are read."""
S = TypeVar("S")


@dataclass(frozen=True)
class Member:
    """A recording of a set: a file, or a member of a zip file; its folder is its class, the folder above its split."""

    split: str
    label: str
    path: Path
    zipped: Path | None = None


def describe(path: Path) -> dict[str, Any]:
    """Counts by split and class, sizes or times in microseconds, what is skipped, and the command that trains on it.

    `extent` is what events reach (largest x and y, plus one), `sensor` what it is taken for, both columns first.

    Raises:
        DataError: nothing is there, nothing that is known, or a folder that cannot be trained on as it is.
    """
    known = path.is_file() and (path.suffix.lower() in arrays.ENDINGS or _starts_with(path, shd.MAGIC))
    if path.is_dir() or known:
        return {"path": str(path), **_folder(path)}
    if path.is_file() and _starts_with(path, *reading.ZIP):
        why = f"an archive; unpack it into a folder of {tree.SHAPE}"
        return {"path": str(path), **_members(path, *find(path)), "not_trained_on": why}
    if path.is_file() and arrays.IDX.search(path.name):
        return {"path": str(path), **_idx_file(path)}
    recording = reading.read(path)
    t = recording.events["t"]
    return {
        "path": str(path),
        "format": recording.format,
        "events": len(t),
        "first_us": int(t[0]) if len(t) else None,
        "last_us": int(t[-1]) if len(t) else None,
        "sensor": recording.sensor,
        **_measure([recording.events]),
        "repairs": dict(recording.repairs),
    }


def _starts_with(path: Path, *magic: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(16).startswith(magic)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the file") from error


def _folder(path: Path) -> dict[str, Any]:
    """As training would read it; recordings in a folder that cannot be trained on are counted all the same."""
    command = f"stbp train folder --data {shlex.quote(str(path))}"
    try:
        found = load.look(path)
        if isinstance(found, arrays.Arrays):
            told = _arrays(found)
        elif isinstance(found, load.Hdf5):
            told = _hdf5(found)
        else:
            told = _images(found) if found.kind == "images" else _recordings(found)
    except NotInstalledError:
        raise
    except DataError as error:
        members, others = find(path) if path.is_dir() and not tree.is_tree(path) else ([], 0)
        if source.find(path) is not None:
            members, others = find(path)
            return {**_members(path, members, others), "command": command.replace("folder", "nmnist-mlp", 1)}
        if not members:
            raise
        return {**_members(path, members, others), "not_trained_on": str(error)}
    drawn = len(told["splits"]) == 1
    return {
        **told,
        "test_set": f"{load.TEST_SHARE:.0%} of each class, drawn" if drawn else "as given",
        "command": command,
    }


def _images(found: tree.Tree) -> dict[str, Any]:
    sizes = images.sizes(found)
    damaged: list[str] = []
    some = _spread([sample for split in found.splits for sample in split.samples])
    for sample in some:
        try:
            read_image(sample.path, (1, 1, 1))
        except (DataError, FileNotFoundError) as error:
            damaged.append(str(error))
    several = "the images have several sizes: add --image-size, as in --image-size 28"
    return {
        **_splits(found, "images"),
        "sizes": {f"{columns} x {rows}": n for (columns, rows), n in sizes.most_common()},
        "measured": len(some),
        "damaged": damaged,
    } | ({"needs": several} if len(sizes) > 1 else {})


def _recordings(found: tree.Tree) -> dict[str, Any]:
    facts: list[recordings.Fact] = []
    damaged: list[str] = []

    def read() -> Iterator[reading.Recording]:
        for sample in _spread([sample for split in found.splits for sample in split.samples]):
            try:
                one = reading.read_quietly(sample.path)
                facts.append(recordings.fact_of(one, sample.name, sample.label))
                yield one
            except NotInstalledError:
                raise
            except DataError as error:
                damaged.append(str(error))

    measured = _measured(read(), damaged)
    return {**_splits(found, "recordings"), **measured, **_sensor(found.splits[0].folder, facts)}


def _sensor(where: Path, facts: Sequence[recordings.Fact]) -> dict[str, Any]:
    try:
        size, why = recordings.sensor_of([recordings.about(facts)], None, where)
    except DataError as error:
        return {"sensor": None, "needs": str(error)}
    return {"sensor": size, "sensor_known": why}


def _splits(found: tree.Tree, what: str) -> dict[str, Any]:
    """Contents of a tree, by split and class, and what of it is not taken."""
    skipped: dict[str, list[str]] = {}
    for split in found.splits:
        for why, names in split.skipped.items():
            skipped.setdefault(why, []).extend(f"{split.folder.name}/{name}" for name in names)
    return {
        "kind": what,
        "formats": dict(Counter(sample.format for split in found.splits for sample in split.samples)),
        "splits": {
            split.folder.name: _counted(what, Counter(sample.label for sample in split.samples))
            for split in found.splits
        },
        "skipped": skipped,
        "unused": list(found.unused),
    }


def _counted(what: str, classes: Counter[str]) -> dict[str, Any]:
    """A split: how many samples, and how many of each class, numbers first and as numbers."""
    return {what: classes.total(), "classes": {name: classes[name] for name in source.classes_of(classes)}}


def _arrays(found: arrays.Arrays) -> dict[str, Any]:
    sets = arrays.read(found)
    _, rows, columns = sets[0].shape
    return {
        "kind": "images",
        "formats": {found.format: sum(map(len, sets))},
        "splits": {
            pair.inputs.key or pair.inputs.path.name: _counted(
                "images", Counter(s.classes[i] for i in s.labels.tolist())
            )
            for pair, s in zip(found.pairs, sets, strict=True)
        },
        "sizes": {f"{columns} x {rows}": sum(map(len, sets))},
        "unused": list(found.unused),
    }


def _idx_file(path: Path) -> dict[str, Any]:
    """One idx file without its partner."""
    match = arrays.IDX.search(path.name)
    if match is not None and match[1]:
        values = read_images(path)
        size = f"{values.shape[2]} x {values.shape[1]}"
        return {
            "kind": "images",
            "splits": {path.name: {"images": len(values), "classes": {}}},
            "sizes": {size: len(values)},
        }
    labels = Counter(map(str, read_labels(path, arrays.LABEL_VALUES).tolist()))
    return {"kind": "labels", "splits": {path.name: _counted("labels", labels)}}


def _hdf5(found: load.Hdf5) -> dict[str, Any]:
    repairs: reading.Repairs = Counter()
    files = {file.stem: shd.read(file, repairs) for file in found.files}
    size = (shd.CHANNELS, 1)
    each = (reading.Recording(one[i], "SHD", size, Counter()) for one in files.values() for i in range(len(one)))
    return {
        "kind": "recordings",
        "splits": {name: _counted("recordings", Counter(map(str, one.labels.tolist()))) for name, one in files.items()},
        **_measured(each, []),
        "repairs": dict(repairs),
        "sensor": size,
        "sensor_known": "from the format",
    }


def _members(path: Path, members: Sequence[Member], others: int) -> dict[str, Any]:
    """The recordings of archives, or of folders without the shape that is trained on."""
    if not members:
        raise DataError(f"{path}: no recordings in it; name a folder or zip file of {', '.join(sorted(ENDINGS))} files")
    splits: dict[str, Counter[str]] = {}
    for member in members:
        splits.setdefault(member.split, Counter())[member.label] += 1
    damaged: list[str] = []
    return {
        "kind": "recordings",
        "splits": {split: _counted("recordings", counts) for split, counts in sorted(splits.items())},
        "other_files": others,
        **_measured(_read_all(_spread(members), damaged), damaged),
    }


def _spread(samples: Sequence[S]) -> list[S]:
    """Up to `MEASURED` of the samples, spread evenly."""
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(len(samples), MEASURED)).astype(int))
    return [samples[i] for i in chosen]


def _measure(events: Sequence[np.ndarray]) -> dict[str, Any]:
    filled = [one for one in events if len(one)]
    durations = [int(one["t"][-1] - one["t"][0]) for one in filled]
    number = sum(map(len, filled))
    seconds = sum(durations) / 1e6
    return {
        "duration_us": int(np.median(durations)) if filled else None,
        "extent": [1 + max(int(one[axis].max()) for one in filled) for axis in "xy"] if filled else None,
        "events_per_second": number / seconds if seconds else None,
        "on_share": sum(int(one["p"].sum()) for one in filled) / number if number else None,
    }


def _measured(found: Iterable[reading.Recording], damaged: list[str]) -> dict[str, Any]:
    """Numbers of events and times of the recordings, which are read here; `damaged` is filled while they are."""
    formats: Counter[str] = Counter()
    repairs: Counter[str] = Counter()
    events: list[np.ndarray] = []
    for recording in found:
        formats[recording.format] += 1
        repairs += recording.repairs
        events.append(recording.events)
    counts = [len(one) for one in events] or [0]
    return {
        "measured": len(events),
        "formats": dict(formats),
        "events": sum(counts),
        "events_per_recording": {
            "smallest": min(counts),
            "median": float(np.median(counts)),
            "largest": max(counts),
        },
        "empty": sum(not len(one) for one in events),
        **_measure(events),
        "repairs": dict(repairs),
        "damaged": damaged,
    }


def find(path: Path) -> tuple[list[Member], int]:
    """The recordings in a folder, its zip files included, or in one zip file; and how many other files there are.

    Raises:
        DataError: a zip file is damaged or its names climb out of it.
    """
    zips = [path] if path.is_file() else sorted(file for file in path.rglob("*.zip") if file.is_file())
    members: list[Member] = []
    others = 0
    for zipped in zips:
        with archive.opened(zipped) as opened:
            for name in archive.names(opened):
                if PurePosixPath(name).suffix.lower() in ENDINGS:
                    members.append(_member(PurePosixPath(name), zipped.stem, Path(name), zipped))
                else:
                    others += 1
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in ENDINGS and file.is_file():
                members.append(_member(file.relative_to(path), path.resolve().name, file, None))
            elif file.is_file() and file not in zips:
                others += 1
    return members, others


def _member(name: PurePosixPath | Path, root: str, path: Path, zipped: Path | None) -> Member:
    folders = name.parts[:-1]
    return Member(folders[-2] if len(folders) > 1 else root, folders[-1] if folders else "", path, zipped)


def _read_all(members: Iterable[Member], damaged: list[str]) -> Iterable[reading.Recording]:
    with ExitStack() as stack:
        archives: dict[Path, ZipFile] = {}
        for member in members:
            try:
                if member.zipped is None:
                    yield reading.read_quietly(member.path)
                    continue
                if member.zipped not in archives:
                    archives[member.zipped] = stack.enter_context(archive.opened(member.zipped))
                raw = archive.read(archives[member.zipped], member.path.as_posix())
                yield reading.decode(raw, member.zipped / member.path)
            except NotInstalledError:
                raise
            except DataError as error:
                damaged.append(str(error))
