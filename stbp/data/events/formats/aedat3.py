"""AEDAT 3.1 (`.aedat`).

Header lines up to `#!END-HEADER`, then packets, little-endian. A packet has a header of 28 bytes (type and source, 16
bits each; size of an event, offset of its time, overflows of the clock, capacity, number of events, number of valid
ones, 32 bits each) and its events. Packets of type 1 hold polarity events of 8 bytes: bit 0 valid, bit 1 polarity (1 =
ON), bits 2-16 y, bits 17-31 x, counted from the upper left, then the lower 31 bits of the time in microseconds; the
number of overflows is its upper part. Source: iniVation, AEDAT file formats, page AEDAT 3.1,
https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-3.1.html, and libcaer, `events/common.h`
and `events/polarity.h`.
"""

import re
import struct
from dataclasses import dataclass

import numpy as np

from stbp.data.error import DataError
from stbp.data.events.formats.record import Repairs, empty, in_order

MAGIC = b"#!AER-DAT3.1"
POLARITY = 1
"""Type of the packets that hold polarity events."""

_END = re.compile(rb"^#!END-HEADER\r?\n", re.MULTILINE)
_FORMAT = re.compile(rb"^#Format: *([^\r\n]*)", re.MULTILINE)
_SOURCE = re.compile(rb"^#Source \d+: *(DVS128|DAVIS240|DAVIS346|DAVIS640)", re.MULTILINE)
_SENSORS = {b"DVS128": (128, 128), b"DAVIS240": (240, 180), b"DAVIS346": (346, 260), b"DAVIS640": (640, 480)}
_PACKET = struct.Struct("<hhiiiiii")
_EVENT = np.dtype([("data", "<u4"), ("t", "<i4")])


@dataclass(frozen=True)
class _Packets:
    """The polarity packets of a file: events, byte of the first one, and overflows of the clock, each."""

    events: list[np.ndarray]
    starts: list[int]
    overflows: list[int]

    def byte(self, i: int) -> int:
        """Where event `i` of all stands in the file."""
        before = np.cumsum([0, *map(len, self.events)])
        packet = int(np.searchsorted(before, i, side="right")) - 1
        return self.starts[packet] + _EVENT.itemsize * (i - int(before[packet]))


def sensor(raw: bytes | memoryview) -> tuple[int, int] | None:
    """Columns and rows of the camera that the header names; None if it names none that is known."""
    end = _END.search(raw)
    source = _SOURCE.search(raw, 0, end.end() if end else 0)
    return _SENSORS[bytes(source[1])] if source else None


def decode(raw: bytes | memoryview, where: str, repairs: Repairs | None = None) -> np.ndarray:
    """The polarity events of an AEDAT 3.1 recording.

    Args:
        raw: the content of the file.
        where: the file, for the message.
        repairs: where to count what was mended; without it nothing is. Events marked as not valid and packets of other
            types, which are left out, are counted there too.

    Returns:
        `[N]` of `EVENT`, in the order of time.

    Raises:
        DataError: another format, a packet header that cannot be, a packet that is cut off, an event off the sensor of
            the camera that the header names, or time that runs backwards.
    """
    view = memoryview(raw)
    packets = _packets(view, _body(view, where), where, repairs)
    read = np.concatenate([np.empty(0, _EVENT), *packets.events])
    overflow = np.repeat(np.array(packets.overflows, np.int64), [len(part) for part in packets.events])
    place = np.flatnonzero(read["data"] & 1)
    if repairs is not None and len(place) < len(read):
        repairs["events marked as not valid left out"] += len(read) - len(place)
    read, overflow = read[place], overflow[place]
    events = empty(len(read))
    events["t"] = overflow << 31 | read["t"]
    events["x"] = read["data"] >> 17
    events["y"] = read["data"] >> 2 & 0x7FFF
    events["p"] = read["data"] >> 1 & 1
    columns, rows = sensor(view) or (1 << 15, 1 << 15)
    wrong = np.flatnonzero((events["x"] >= columns) | (events["y"] >= rows) | (read["t"] < 0))
    if len(wrong):
        i = int(wrong[0])
        raise DataError(
            f"{where}: byte {packets.byte(int(place[i])):,}: x = {events['x'][i]}, y = {events['y'][i]}, time"
            f" {read['t'][i]} us is off the sensor of {columns} x {rows} or before its start ({len(wrong):,} of"
            f" {len(read):,} events are); use an undamaged copy"
        )
    return in_order(events, where, lambda i: packets.byte(int(place[i])), repairs)


def _body(view: memoryview, where: str) -> int:
    """The byte at which the packets begin."""
    if bytes(view[: len(MAGIC)]) != MAGIC:
        raise DataError(f"{where}: byte 0: not AEDAT 3.1, it does not begin with {MAGIC.decode()}")
    end = _END.search(view)
    if end is None:
        raise DataError(f"{where}: byte {len(view):,}: no line #!END-HEADER; use an undamaged copy")
    packing = _FORMAT.search(view, 0, end.start())
    if packing and packing[1] != b"RAW":
        name = bytes(packing[1]).decode("latin-1")
        raise DataError(f"{where}: byte {packing.start(1)}: format {name[:40]!r}, only RAW is read; export it as RAW")
    return end.end()


def _packets(view: memoryview, start: int, where: str, repairs: Repairs | None) -> _Packets:
    found = _Packets([], [], [])
    at = start
    while at < len(view):
        if at + _PACKET.size > len(view):
            _cut(where, at, f"a packet header has {len(view) - at} of {_PACKET.size} bytes", repairs)
            break
        kind, _, size, offset, overflow, capacity, number, _ = _PACKET.unpack_from(view, at)
        odd = kind == POLARITY and ((size, offset) != (_EVENT.itemsize, 4) or overflow < 0)
        if kind < 0 or size < 1 or not 0 <= number <= capacity or odd:
            raise DataError(
                f"{where}: byte {at:,}: no packet begins here (type {kind}, event size {size}, time at {offset},"
                f" overflows {overflow}, {number} events of {capacity}); use an undamaged copy"
            )
        first = at + _PACKET.size
        there = min(number, (len(view) - first) // size)
        if there < number:
            _cut(where, at, f"a packet of {number:,} events has {there:,}", repairs)
        at = first + number * size
        if kind == POLARITY:
            found.events.append(np.frombuffer(view[first : first + there * size], _EVENT))
            found.starts.append(first)
            found.overflows.append(overflow)
        elif repairs is not None:
            repairs["packets of other types left out"] += 1
    return found


def _cut(where: str, byte: int, what: str, repairs: Repairs | None) -> None:
    if repairs is None:
        raise DataError(f"{where}: byte {byte:,}: truncated, {what}; use an undamaged copy")
    repairs["truncated last packet shortened"] += 1
