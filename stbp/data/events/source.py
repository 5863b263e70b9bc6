"""Sets of recordings as they are published: an archive for each split, or the tree unpacked from it.

N-MNIST comes as `Train.zip` and `Test.zip`, inside `Train/<label>/<name>.bin`.
"""

import mmap
import os
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import deflate

from stbp.data.error import DataError
from stbp.data.events import archive

ENDING = ".bin"
DEFLATE_RATIO = 1032
"""Bytes that one deflated byte can stand for, at most: zlib's technical details, https://zlib.net/zlib_tech.html."""
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
    # The content of a recording, and its number of bytes; several threads may call them.
    read: Callable[[Recording], bytes | bytearray]
    size: Callable[[Recording], int]


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
    with _readable(path):
        if path.is_file():
            return [_stamp(path, path.name)]
        return [_stamp(path / recording.member, recording.member) for recording in _in_tree(path)[0]]


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Open a split, an archive or a folder.

    Raises:
        DataError: it cannot be read, holds no recording, one twice, or a name that would climb out of the folder when
            unpacked; `read` raises it where a recording is damaged. The message names archive and member.
    """
    if path.is_dir():
        recordings, left_out = _in_tree(path)
        yield _checked(path, Source(recordings, left_out, partial(_read_file, path), partial(_file_size, path)))
        return
    with archive.opened(path) as file, path.open("rb") as raw:
        infos = {info.filename: info for info in file.infolist()}
        recordings, left_out = _in_archive(file)
        with mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as content:

            def read(recording: Recording) -> bytes | bytearray:
                found = _unpacked(content, infos[recording.member])
                return archive.read(file, recording.member) if found is None else found

            def size(recording: Recording) -> int:
                info = infos[recording.member]
                return min(info.file_size, DEFLATE_RATIO * info.compress_size)  # a lie costs no memory

            yield _checked(path, Source(recordings, left_out, read, size))


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


def _in_archive(file: zipfile.ZipFile) -> tuple[list[Recording], list[str]]:
    found, left_out = [], []
    for member in archive.names(file):
        parts = archive.parts(member)
        if not parts or "__MACOSX" in parts or parts[-1].startswith("."):
            continue
        if member.endswith(ENDING) and len(parts) > 1:
            found.append(Recording(parts[-2], parts[-1], member))
        else:
            left_out.append(member)
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


def _unpacked(content: memoryview, info: zipfile.ZipInfo) -> bytes | bytearray | None:
    """A member's content, or None where anything is not as usual: `archive.read` says what.

    zipfile takes half as long again for members this small, holding the interpreter's lock all the time.
    """
    if info.flag_bits & 1 or info.file_size > archive.LARGEST:
        return None
    try:
        name, extra = struct.unpack_from("<HH", content, info.header_offset + 26)
        begin = info.header_offset + 30 + name + extra
        packed = content[begin : begin + info.compress_size]
        if info.compress_type == zipfile.ZIP_DEFLATED:
            found = deflate.deflate_decompress(packed, info.file_size)
        else:
            found = bytes(packed)
    except (struct.error, deflate.DeflateError):
        return None
    whole = len(found) == info.file_size and deflate.crc32(found) == info.CRC
    return found if whole and info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) else None


def _read_file(folder: Path, recording: Recording) -> bytes:
    path = folder / recording.member
    with _readable(path):
        return path.read_bytes()


def _file_size(folder: Path, recording: Recording) -> int:
    path = folder / recording.member
    with _readable(path):
        return path.stat().st_size


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Says which file it was that could not be read, `path` where the system does not tell."""
    try:
        yield
    except OSError as error:
        where, why = error.filename or path, error.strerror or error
        raise DataError(f"{where}: cannot be read ({why}); check the file") from error
