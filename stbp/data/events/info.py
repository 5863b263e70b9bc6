"""What is in a recording, an archive or a folder of them: everything is counted, nothing assumed."""

from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import ZipFile

import numpy as np

from stbp.data.error import DataError
from stbp.data.events import archive
from stbp.data.events.formats import reading, shd

ENDINGS = frozenset({".bin", ".aedat", ".aedat4", ".dat", ".raw"})
"""Files with these endings are taken for recordings where there are many; what they are, their content tells."""
MEASURED = 2_000
"""Recordings of a set that are read, spread evenly over it; all members are counted."""


@dataclass(frozen=True)
class Member:
    """A recording of a set: a file, or a member of a zip file; its folder is its class, the folder above its split."""

    split: str
    label: str
    path: Path
    zipped: Path | None = None


def describe(path: Path) -> dict[str, Any]:
    """Counts, times in microseconds, extents in pixels: for a recording, an HDF5 file, or an archive or folder of many.

    `extent` is what the events reach (largest x and y, plus one), `sensor` what the file says, both columns first.

    Raises:
        DataError: nothing is there, or nothing that is known.
    """
    if path.is_dir() or (path.is_file() and _starts_with(path, b"PK")):
        return _describe_set(path)
    if path.is_file() and _starts_with(path, shd.MAGIC):
        return _describe_hdf5(path)
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


def _starts_with(path: Path, magic: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the file") from error


def _measure(recordings: list[np.ndarray]) -> dict[str, Any]:
    filled = [events for events in recordings if len(events)]
    durations = [int(events["t"][-1] - events["t"][0]) for events in filled]
    number = sum(map(len, filled))
    seconds = sum(durations) / 1e6
    return {
        "duration_us": int(np.median(durations)) if filled else None,
        "extent": [1 + max(int(events[axis].max()) for events in filled) for axis in "xy"] if filled else None,
        "events_per_second": number / seconds if seconds else None,
        "on_share": sum(int(events["p"].sum()) for events in filled) / number if number else None,
    }


def _describe_hdf5(path: Path) -> dict[str, Any]:
    repairs: Counter[str] = Counter()
    found = shd.read(path, repairs)
    counts = Counter(str(label) for label in found.labels.tolist())
    return {
        "path": str(path),
        "splits": {path.stem: {"recordings": len(found), "classes": _sorted(counts)}},
        "other_files": 0,
        **_measure_set(Counter({"SHD": len(found)}), [found[i] for i in range(len(found))], repairs, []),
    }


def _describe_set(path: Path) -> dict[str, Any]:
    members, others = find(path)
    if not members:
        raise DataError(f"{path}: no recordings in it; name a folder or zip file of {', '.join(sorted(ENDINGS))} files")
    splits: dict[str, Counter[str]] = {}
    for member in members:
        splits.setdefault(member.split, Counter())[member.label] += 1
    chosen = np.unique(np.linspace(0, len(members) - 1, min(len(members), MEASURED)).astype(int))
    formats: Counter[str] = Counter()
    repairs: Counter[str] = Counter()
    damaged: list[str] = []
    recordings: list[np.ndarray] = []
    for recording in _read_all((members[i] for i in chosen), damaged):
        formats[recording.format] += 1
        repairs += recording.repairs
        recordings.append(recording.events)
    return {
        "path": str(path),
        "splits": {
            split: {"recordings": counts.total(), "classes": _sorted(counts)}
            for split, counts in sorted(splits.items())
        },
        "other_files": others,
        **_measure_set(formats, recordings, repairs, damaged),
    }


def _measure_set(
    formats: Counter[str], recordings: list[np.ndarray], repairs: Counter[str], damaged: list[str]
) -> dict[str, Any]:
    counts = [len(events) for events in recordings] or [0]
    return {
        "measured": len(recordings),
        "formats": dict(formats),
        "events": sum(counts),
        "events_per_recording": {
            "smallest": min(counts),
            "median": float(np.median(counts)),
            "largest": max(counts),
        },
        "empty": sum(not len(events) for events in recordings),
        **_measure(recordings),
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
                    yield reading.read(member.path)
                    continue
                if member.zipped not in archives:
                    archives[member.zipped] = stack.enter_context(archive.opened(member.zipped))
                raw = archive.read(archives[member.zipped], member.path.as_posix())
                yield reading.decode(raw, member.zipped / member.path)
            except DataError as error:
                damaged.append(str(error))


def _sorted(counts: Counter[str]) -> dict[str, int]:
    """By name, numbers first and as numbers."""

    def rank(name: str) -> tuple[bool, int, str]:
        return not name.isdecimal(), int(name) if name.isdecimal() else 0, name

    return {name: counts[name] for name in sorted(counts, key=rank)}
