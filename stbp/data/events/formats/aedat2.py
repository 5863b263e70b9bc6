"""AEDAT 2.0 of the DVS128 camera (`.aedat`), the format of CIFAR10-DVS.

Header lines, `#` to line feed, then eight bytes an event, big-endian: an address of 32 bits and a time of 32 bits,
signed, in microseconds. The DVS128's address: bit 0 polarity, bits 1-7 x, bits 8-14 y, bit 15 an event of the sync
input, which is left out here. Source: iniVation, AEDAT file formats, pages AEDAT 1.0 and 2.0,
https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-2.0.html.

That page says that bit 0 is 1 for ON and that x grows to the right. jAER, the program that wrote these files, reads
them the other way round (`DVS128.java`: type `1 - addr & 1`, x `127 - ...`), and so does the MATLAB script that the
authors of CIFAR10-DVS point to (`dat2mat.m`). We follow the programs; y counts from the bottom in both.
"""

import re

import numpy as np

from stbp.data.error import DataError
from stbp.data.events.formats.record import Repairs, empty, in_order, whole

MAGIC = b"#!AER-DAT2.0"
SENSOR = (128, 128)
"""Columns, rows."""
SIZE = 8

_FILE = np.dtype([("address", ">u4"), ("t", ">i4")])
_HEADER = re.compile(rb"(?:#[^\n]*\n)*")
_CHIP = re.compile(rb"^# AEChip: *(\S+)", re.MULTILINE)


def decode(raw: bytes | memoryview, where: str, repairs: Repairs | None = None) -> np.ndarray:
    """The events of an AEDAT 2.0 recording, x and y from the upper left corner of the picture that jAER shows.

    Args:
        raw: the content of the file.
        where: the file, for the message.
        repairs: where to count what was mended; without it nothing is. Sync events are counted there too.

    Returns:
        `[N]` of `EVENT`, in the order of time.

    Raises:
        DataError: another format or camera, the last event is cut off, an address is off the sensor, or time runs
            backwards (the clock overflows after 36 minutes).
    """
    view = memoryview(raw)
    if bytes(view[: len(MAGIC)]) != MAGIC:
        raise DataError(f"{where}: byte 0: not AEDAT 2.0, it does not begin with {MAGIC.decode()}")
    header = _HEADER.match(view)
    assert header is not None
    start = header.end()
    _check_chip(header[0], where)
    read = np.frombuffer(whole(view, start, SIZE, where, repairs), _FILE)
    address = read["address"].astype(np.uint32)
    off = np.flatnonzero(address > 0xFFFF)
    if len(off):
        i = int(off[0])
        raise DataError(
            f"{where}: byte {start + SIZE * i:,}: address 0x{address[i]:08x} is off the sensor of a DVS128"
            f" ({len(off):,} of {len(read):,} are); this is a recording of another camera, or a damaged one"
        )
    place = np.flatnonzero(address < 0x8000)
    if repairs is not None and len(place) < len(read):
        repairs["sync events left out"] += len(read) - len(place)
    address = address[place]
    events = empty(len(place))
    events["t"] = read["t"][place]
    events["x"] = 127 - (address >> 1 & 127)
    events["y"] = 127 - (address >> 8)
    events["p"] = 1 - (address & 1)
    return in_order(events, where, lambda i: start + SIZE * int(place[i]), repairs)


def _check_chip(header: bytes, where: str) -> None:
    chip = _CHIP.search(header)
    if chip and not chip[1].endswith(b"DVS128"):
        name = chip[1].decode("latin-1")
        raise DataError(
            f"{where}: byte {chip.start(1):,}: recorded by {name[:80]!r}, and only the addresses of a DVS128 are known;"
            " convert it to AEDAT 4 (DV does)"
        )
