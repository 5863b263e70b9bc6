"""Recordings in a zip file, read without unpacking it."""

import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stbp.data.error import DataError

LARGEST = 1 << 28
"""Bytes that a member may have when unpacked. A small zip file can hold more zeros than memory."""


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip file at `path`, after a look at the names of its members.

    Raises:
        DataError: it is missing, not a zip file, or a member's name climbs out of the folder or a member is a link:
            such a file was not made by honest means, so that nothing of it is read.
    """
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; name the archive") from None
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise DataError(f"{path}: not a whole zip file ({error}); use an undamaged copy") from error
    with archive:
        for info in archive.infolist():
            if _climbs(info.filename):
                raise DataError(
                    f"{path}: byte {info.header_offset:,}: member {info.filename!r} climbs out of the folder"
                )
            if stat.S_ISLNK(info.external_attr >> 16):
                raise DataError(f"{path}: byte {info.header_offset:,}: member {info.filename!r} is a link")
        yield archive


def _climbs(name: str) -> bool:
    if not name.startswith(("/", "\\")) and ".." not in name and ":" not in name:
        return False  # nearly all names, at a tenth of the time
    folders = parts(name.replace("\\", "/"))
    return name.startswith(("/", "\\")) or ".." in folders or (bool(folders) and folders[0].endswith(":"))


def names(archive: zipfile.ZipFile) -> list[str]:
    """The members that are files, in the order of the archive."""
    return [info.filename for info in archive.infolist() if not info.filename.endswith("/")]


def parts(name: str) -> list[str]:
    """The folders of a member and its own name: what `PurePosixPath(name).parts` gives for one that is not absolute."""
    return [part for part in name.split("/") if part not in ("", ".")]


def read(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member's content, checked against its checksum.

    Raises:
        DataError: there is no such member, or it is damaged, encrypted or larger than `LARGEST`.
    """
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise DataError(f"{archive.filename}: no member {name!r}; stbp data info lists what is there") from None
    where = f"{archive.filename}: byte {info.header_offset:,}: member {name}"
    if info.file_size > LARGEST:
        raise DataError(f"{where}: {info.file_size:,} bytes when unpacked, more than the {LARGEST:,} allowed")
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{where}: damaged ({error}); use an undamaged copy of the archive") from error
    except (RuntimeError, NotImplementedError) as error:  # a password, or a compression that Python does not know
        raise DataError(
            f"{where}: cannot be unpacked ({error}); pack it anew, deflated and without a password"
        ) from error
