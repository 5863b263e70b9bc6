"""EVT 2, EVT 2.1, EVT 3 and DAT (Prophesee) and AEDAT 4 (iniVation), read with faery: `pip install 'stbp[events]'`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stbp.data.error import DataError, NotInstalledError
from stbp.data.events.formats.record import empty

MOST = 1 << 28
"""Events that a recording may hold, 3.5 GB: packets are compressed, a small file can hold more than memory."""

Kind = Literal["evt", "dat", "aedat4"]
Sensor = tuple[int, int] | None
"""Columns and rows, None where the header does not say."""

_WIDEST = {"evt": (2048, 2048), "dat": (16384, 16384)}
"""What the addresses of a format can express: taken where the header does not give the size of the sensor."""


def decode(path: Path, kind: Kind) -> tuple[np.ndarray, Sensor]:
    """The events of a recording, as they stand in the file, and the size of its sensor.

    Args:
        path: a file on disk; faery takes no bytes.
        kind: its format, without the version, which the header names.

    Returns:
        `[N]` of `EVENT`; columns and rows.

    Raises:
        DataError: faery is not installed, or it refuses the file; a polarity is not 0 or 1, or there are more than
            `MOST` events. (faery 0.7.1 does not always raise for a damaged AEDAT 4 file: see `apart`.)
    """
    try:
        import faery.file_decoder as faery
    except ImportError:
        raise NotInstalledError(
            f"{path}: {kind.upper()} needs faery; install it with: pip install 'stbp[events]'"
        ) from None
    try:
        sensor, packets = _open(faery, path, kind)
        parts: list[np.ndarray] = []
        number = 0
        for packet in packets:
            number += len(packet)
            if number > MOST:
                raise DataError(f"{path}: more than the {MOST:,} events allowed; cut the recording")
            parts.append(_events(packet))
    except (DataError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of faery's Rust side is a BaseException
        reason = next(iter(str(error).splitlines()), type(error).__name__)  # a backtrace may follow
        raise DataError(f"{path}: faery cannot read it ({reason}); use an undamaged copy") from error
    events = np.concatenate([empty(0), *parts])
    wrong = np.flatnonzero(events["p"] > 1)
    if len(wrong):
        i = int(wrong[0])
        raise DataError(
            f"{path}: polarity {events['p'][i]} of event {i:,} is neither 0 nor 1 ({len(wrong):,} of {len(events):,}"
            " are not); use an undamaged copy"
        )
    return events, sensor


def _open(faery: Any, path: Path, kind: Kind) -> tuple[Sensor, Iterator[np.ndarray]]:
    if kind == "aedat4":
        decoder = faery.aedat.Decoder(path)
        tracks = [track for track in decoder.tracks() if track.data_type == "events"]
        if not tracks:
            raise DataError(f"{path}: a recording without a track of events")
        return tracks[0].dimensions, (packet for track, packet in decoder if track.id == tracks[0].id)
    if kind == "dat":
        decoder = faery.dat.Decoder(path, _WIDEST[kind], "dat2")
        if decoder.event_type == "trigger":
            raise DataError(f"{path}: a file of trigger signals, not of events; name the one with _td")
        packets = iter(decoder)
    else:
        decoder = faery.evt.Decoder(path, _WIDEST[kind], None)
        packets = (packet["events"] for packet in decoder if "events" in packet)
    return (None if decoder.dimensions == _WIDEST[kind] else decoder.dimensions), packets


def _events(packet: np.ndarray) -> np.ndarray:
    events = empty(len(packet))
    events["t"], events["x"], events["y"] = packet["t"], packet["x"], packet["y"]
    assert packet.dtype.names is not None
    events["p"] = packet["payload"] if "payload" in packet.dtype.names else packet["on"]
    return events
