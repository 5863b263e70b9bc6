"""Files of event cameras, written event by event from the published descriptions and not with our own writer.

An event is `(t, x, y, p)`: microseconds, column from the left, row from the top, 1 = ON.
"""

import struct
from collections.abc import Iterable

import numpy as np

from stbp.data.events.formats.record import EVENT

Event = tuple[int, int, int, int]


def nmnist(events: Iterable[Event]) -> bytes:
    """`Each example is a separate binary file consisting of a list of events. Each event occupies 40 bits: bit 39-32 x,
    31-24 y, 23 polarity (0 for OFF, 1 for ON), 22-0 time stamp in microseconds`: the README of N-MNIST."""
    return b"".join((x << 32 | y << 24 | p << 23 | t).to_bytes(5, "big") for t, x, y, p in events)


def nmnist_events(raw: bytes) -> list[Event]:
    """The events of a recording, one by one, from the same description: the overflow marker is y = 240."""
    found: list[Event] = []
    late = 0
    for at in range(0, len(raw), 5):
        word = int.from_bytes(raw[at : at + 5], "big")
        x, y, p, t = word >> 32, word >> 24 & 255, word >> 23 & 1, word % 2**23
        if y == 240:
            late += 2**13
        else:
            found.append((t + late, x, y, p))
    return found


def aedat2(events: Iterable[Event], chip: str = "ch.unizh.ini.jaer.chip.retina.DVS128") -> bytes:
    """Addresses of a DVS128 as jAER writes them: x from the right, y from the bottom, bit 0 is 1 for OFF."""
    header = (
        "#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"
        "# Data format is int32 address, int32 timestamp (8 bytes total), repeated for each event\r\n"
        f"# Timestamps tick is 1 us\r\n# AEChip: {chip}\r\n"
    )
    body = b"".join(struct.pack(">ii", (127 - y) << 8 | (127 - x) << 1 | (1 - p), t) for t, x, y, p in events)
    return header.encode() + body


AEDAT3_HEADER = (
    b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#-Source 0: DAVIS240C\r\n"
    b"#Start-Time: 2016-10-18 16:05:40 (TZ+0200)\r\n#!END-HEADER\r\n"
)


def aedat3_packet(events: Iterable[Event], overflow: int = 0, valid: int = 1) -> bytes:
    """A packet of polarity events; `t` is the lower 31 bits of the time."""
    body = [struct.pack("<Ii", x << 17 | y << 2 | p << 1 | valid, t) for t, x, y, p in events]
    header = struct.pack("<hhiiiiii", 1, 1, 8, 4, overflow, len(body), len(body), len(body) * valid)
    return header + b"".join(body)


def aedat3_special(t: int) -> bytes:
    """A packet with one special event (type 0), a reset of the clock."""
    return struct.pack("<hhiiiiii", 0, 1, 8, 4, 0, 1, 1, 1) + struct.pack("<Ii", 1 << 1 | 1, t)


def array(events: Iterable[Event]) -> np.ndarray:
    return np.array(list(events), EVENT)


def check(events: np.ndarray) -> None:
    """What holds for any recording that a decoder lets through."""
    assert events.dtype == EVENT
    assert events.ndim == 1
    assert np.all(np.diff(events["t"]) >= 0)
    assert np.all(events["p"] <= 1)
