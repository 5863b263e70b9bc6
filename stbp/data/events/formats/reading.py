"""Recordings of any known format, told by their content."""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stbp.data.error import DataError
from stbp.data.events import archive
from stbp.data.events.formats import aedat2, aedat3, faery, faery_process, nmnist, shd
from stbp.data.events.formats.record import Repairs, in_order
from stbp.files import write_atomically

_log = logging.getLogger(__name__)
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_OTHERS = (*ZIP, shd.MAGIC)
_HEAD = 4096
"""Bytes of a Prophesee header that are searched for its format."""


@dataclass(frozen=True, eq=False)
class Recording:
    """A recording, and what its reader has to say about it.

    Attributes:
        events: `[N]` of `EVENT`, in the order of time.
        format: its name.
        sensor: columns and rows, None where the file does not say.
        repairs: what was mended or left out, and how often.
    """

    events: np.ndarray
    format: str
    sensor: tuple[int, int] | None
    repairs: Repairs


def read_events(path: str | Path) -> np.ndarray:
    """The events of a recording, in the order of time; what had to be mended is logged.

    Args:
        path: a file of any of the formats in `stbp.data.events`, or a member of a zip file,
            `Train.zip/Train/0/00002.bin`.

    Returns:
        `[N]`, structured: `t` (int64, microseconds), `x`, `y` (uint16, from the upper left), `p` (uint8, 1 = ON).

    Raises:
        DataError: the file is missing, of no known format, or damaged beyond what can safely be mended.
    """
    return read(Path(path)).events


def read(path: Path) -> Recording:
    """As `read_events`, with the format, the sensor and the repairs."""
    recording = read_quietly(path)
    if recording.repairs:
        _log.warning("%s: %s", path, ", ".join(f"{n:,} {what}" for what, n in recording.repairs.items()))
    return recording


def read_quietly(path: Path) -> Recording:
    """As `read`, for somebody who tells of the repairs of many files at once."""
    outer = next((parent for parent in path.parents if parent.is_file()), None)
    if outer is None:
        return decode(_content(path), path)
    with archive.opened(outer) as opened:
        return decode(archive.read(opened, path.relative_to(outer).as_posix()), path)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; name a recording") from None
    except IsADirectoryError:
        raise DataError(f"{path}: a folder; name a recording in it") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the file") from error


def format_of(head: bytes, path: Path) -> str | None:
    """The name of a recording's format, from the first bytes of the file; None where they are of none that is known.

    N-MNIST's format has no mark of its own: it is told by the name's ending, `.bin`.
    """
    if head.startswith(aedat2.MAGIC):
        return "AEDAT 2.0"
    if head.startswith(aedat3.MAGIC):
        return "AEDAT 3.1"
    if found := _camera_format(head[:_HEAD]):
        return found[0]
    return "N-MNIST" if path.suffix.lower() == ".bin" and not head.startswith(_OTHERS) else None


def decode(raw: bytes, path: Path) -> Recording:
    """The recording that `raw`, the content of `path`, holds. Formats that faery reads need the file itself."""
    repairs: Repairs = Counter()
    where, form = str(path), format_of(raw[:_HEAD], path)
    if form == "AEDAT 2.0":
        return Recording(aedat2.decode(raw, where, repairs), form, aedat2.SENSOR, repairs)
    if form == "AEDAT 3.1":
        return Recording(aedat3.decode(raw, where, repairs), form, aedat3.sensor(raw), repairs)
    if form == "N-MNIST":
        return Recording(nmnist.decode(raw, where, repairs), form, None, repairs)
    if found := _camera_format(raw[:_HEAD]):
        name, kind = found
        if not path.is_file():
            raise DataError(f"{path}: {name} is read from a file of its own only; unpack the archive")
        events, sensor = faery_process.decode_aedat4(path) if kind == "aedat4" else faery.decode(path, kind)
        return Recording(in_order(events, where, None, repairs), name, sensor, repairs)
    if raw.startswith(shd.MAGIC):
        raise DataError(f"{path}: HDF5 holds many recordings; read it with stbp.data.events.formats.shd.read")
    if raw.startswith(ZIP):
        raise DataError(
            f"{path}: an archive of many recordings; name one as {path.name}/MEMBER, or stbp data info {path}"
        )
    return _unnamed(raw, where, repairs)


def _camera_format(head: bytes) -> tuple[str, faery.Kind] | None:
    if head.startswith(b"#!AER-DAT4.0"):
        return "AEDAT 4", "aedat4"
    if not head.startswith(b"% "):
        return None
    lines = [line.lower() for line in head.split(b"\n") if line.startswith(b"% ")]
    for version in (b"2.1", b"2", b"3"):
        starts = (b"% evt " + version, b"% format evt" + version.replace(b".", b""), b"% format evt" + version)
        if any(line.startswith(starts) for line in lines):
            return f"EVT {version.decode()}", "evt"
    return ("DAT", "dat") if any(b"data file containing" in line for line in lines) else None


def _unnamed(raw: bytes, where: str, repairs: Repairs) -> Recording:
    """N-MNIST's format has no mark of its own. Without the name too, all of the content must fit, and be something."""
    try:
        events = nmnist.decode(raw, where)
    except DataError:
        raise DataError(
            f"{where}: no recording of a known format (N-MNIST .bin, AEDAT 2.0, 3.1 or 4, EVT 2 or 3, DAT)"
        ) from None
    if not len(events):
        raise DataError(f"{where}: empty, and its name tells no format; use an undamaged copy")
    return Recording(events, "N-MNIST", None, repairs)


def write_events(path: str | Path, events: np.ndarray) -> None:
    """Writes a recording in N-MNIST's format, whole or not at all.

    Args:
        path: its name must end in `.bin`.
        events: `[N]` as `read_events` gives them, within 256 columns, 240 rows and 71 minutes.

    Raises:
        DataError: another name, an event that the format cannot hold, or a folder that cannot be written to.
    """
    path = Path(path)
    if path.suffix.lower() != ".bin":
        raise DataError(f"{path}: only N-MNIST's format is written; let the name end in .bin")
    content = nmnist.encode(events)
    try:
        write_atomically(path, content)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error}); name another folder") from error
