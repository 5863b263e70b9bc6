"""Sets of recordings as they are published: an archive for each split, or the tree unpacked from it.

N-MNIST comes as `Train.zip` and `Test.zip`, inside `Train/<label>/<name>.bin`.
"""

import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from stbp.data.error import DataError

ENDING = ".bin"
LARGEST = 1 << 26
"""Bytes of a recording that an archive may announce, 13 million events: N-MNIST's longest has 36 kB."""

_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error)
_FOLDER_NAME = re.compile(r"n-?mnist.*", re.IGNORECASE)


class Recording(NamedTuple):
    """One recording of a split: its label, its file name, and where it lies in the archive or folder."""

    label: str
    name: str
    member: str


class Source(NamedTuple):
    """A split, open for reading."""

    # In the order of their names, which is MNIST's own order for N-MNIST.
    recordings: list[Recording]
    # Files that are no recordings.
    left_out: list[str]
    # The content of a recording; several threads may call it.
    read: Callable[[Recording], bytes]


def find(folder: Path) -> tuple[Path, Path] | None:
    """Training and test split of an N-MNIST in a folder: `Train.zip` and `Test.zip`, or the folders `Train` and `Test`.

    Looks in the folder itself, then in the folders `n-mnist*` in it by name; the case of letters does not matter.
    Archives go before folders. None where there is nothing.
    """
    inside = [path for path in _entries(folder) if _FOLDER_NAME.fullmatch(path.name) and path.is_dir()]
    for place in (folder, *inside):
        names = {path.name.lower(): path for path in _entries(place)}
        for ending, holds in ((".zip", Path.is_file), ("", _is_tree)):
            splits = [names.get(split + ending) for split in ("train", "test")]
            train, test = (path if path is not None and holds(path) else None for path in splits)
            if train is not None and test is not None:
                return train, test
    return None


def stamp(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and modification time in nanoseconds of every file of a split, in order: what it is known by.

    Raises:
        DataError: a file or folder cannot be looked at.
    """
    try:
        if path.is_file():
            return [_stamp(path, path.name)]
        return [_stamp(path / recording.member, recording.member) for recording in _in_tree(path)[0]]
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); check the file") from error


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Open a split, an archive or a folder.

    Raises:
        DataError: it cannot be read, holds no recording, one twice, or a name that would climb out of the folder when
            unpacked; `read` raises it where a recording is damaged. The message names archive and member.
    """
    if path.is_dir():
        recordings, left_out = _in_tree(path)
        yield _checked(path, Source(recordings, left_out, lambda recording: _read_file(path / recording.member)))
        return
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the file") from error
    except _BROKEN_ZIP as error:
        raise DataError(f"{path}: no zip archive, or a damaged one ({error}); use an undamaged copy") from error
    with archive:
        recordings, left_out = _in_archive(path, archive.infolist())
        infos = {info.filename: info for info in archive.infolist()}
        source = Source(recordings, left_out, lambda recording: _read_member(path, archive, infos[recording.member]))
        yield _checked(path, source)


def classes_of(labels: Iterable[str]) -> tuple[str, ...]:
    """The different labels in order: numbers by their value, then names by the alphabet."""
    return tuple(
        sorted(set(labels), key=lambda label: (not label.isdecimal(), label.isdecimal() and int(label), label))
    )


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _is_tree(path: Path) -> bool:
    return next(path.glob(f"*/*{ENDING}"), None) is not None


def _stamp(path: Path, name: str) -> tuple[str, int, int]:
    status = path.stat()
    return name, status.st_size, status.st_mtime_ns


def _in_tree(folder: Path) -> tuple[list[Recording], list[str]]:
    found, left_out = [], []
    for label in os.listdir(folder):  # noqa: PTH208 names are all that is wanted of 60,000 files
        if label.startswith("."):
            continue
        if not (folder / label).is_dir():
            left_out.append(label)
            continue
        for name in os.listdir(folder / label):  # noqa: PTH208
            member = f"{label}/{name}"
            if name.endswith(ENDING):
                found.append(Recording(label, name, member))
            elif not name.startswith("."):
                left_out.append(member)
    return sorted(found, key=_order), sorted(left_out)


def _in_archive(path: Path, members: list[zipfile.ZipInfo]) -> tuple[list[Recording], list[str]]:
    found, left_out = [], []
    for info in members:
        name = info.orig_filename
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts or "\\" in name or ":" in name or "\0" in name:
            raise DataError(
                f"{path}: member {name!r} would be unpacked outside of its folder; do not trust this archive"
            )
        if info.is_dir() or "__MACOSX" in place.parts or place.name.startswith("."):
            continue
        if name.endswith(ENDING) and len(place.parts) > 1:
            found.append(Recording(place.parts[-2], place.name, info.filename))
        else:
            left_out.append(name)
    return sorted(found, key=_order), sorted(left_out)


def _order(recording: Recording) -> tuple[str, str]:
    return recording.name, recording.label


def _checked(path: Path, source: Source) -> Source:
    if not source.recordings:
        raise DataError(f"{path}: holds no recording <label>/<name>{ENDING}; name the folder of the set as published")
    for one, other in zip(source.recordings, source.recordings[1:], strict=False):
        if _order(one) == _order(other):
            raise DataError(f"{path}: member {other.member} is there twice; use an undamaged copy")
    return source


def _read_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.file_size > LARGEST:
        raise DataError(
            f"{path}: member {info.filename} announces {info.file_size:,} bytes, more than {LARGEST:,} for a recording"
        )
    try:
        return archive.read(info)
    except OSError as error:
        raise DataError(
            f"{path}: member {info.filename} cannot be read ({error.strerror or error}); check the file"
        ) from error
    except _BROKEN_ZIP as error:
        raise DataError(f"{path}: member {info.filename} is damaged ({error}); use an undamaged copy") from error


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the file") from error
