"""Events in memory: one structured array for every format, and what its readers check and count."""

from collections import Counter
from collections.abc import Callable

import numpy as np

from stbp.data.error import DataError

EVENT = np.dtype([("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])
"""One address event: time in microseconds, column from the left, row from the top, polarity (1 = ON, brighter).

`p` is a uint8, not a bool, so that it can be used as the index of a channel."""

LATEST = 1_000
"""Microseconds that an event may come late and still be sorted in: the finest bin of the literature."""

Repairs = Counter[str]
"""What a reader mended, and how often. A decoder that is given none mends nothing: it raises."""


def empty(n: int) -> np.ndarray:
    """An array of `n` events, not filled in."""
    return np.empty(n, EVENT)


def in_order(events: np.ndarray, where: str, byte: Callable[[int], int] | None, repairs: Repairs | None) -> np.ndarray:
    """The events in the order of time.

    Events that come at most `LATEST` microseconds late are sorted in (equal times keep their order) and counted.

    Args:
        events: `[N]` of `EVENT`, as they stand in the file.
        where: the file, for the message.
        byte: where in the file an event stands, if that is known.
        repairs: where to count; without it any late event is an error.

    Raises:
        DataError: an event comes late and may not, or cannot, be sorted in: a clock that was set back.
    """
    t = events["t"]
    if not np.any(t[1:] < t[:-1]):
        return events
    lag = np.maximum.accumulate(t) - t
    late = np.flatnonzero(lag > (LATEST if repairs is not None else 0))
    if len(late):
        i = int(late[0])
        place = f"{where}: byte {byte(i):,}" if byte else where
        raise DataError(
            f"{place}: time runs backwards, from {t[i] + lag[i]:,} to {t[i]:,} us (event {i:,});"
            " use an undamaged copy, or cut the recording there"
        )
    assert repairs is not None
    repairs["late events sorted in"] += int(np.count_nonzero(lag))
    return events[np.argsort(t, kind="stable")]


def whole(raw: memoryview, start: int, size: int, where: str, repairs: Repairs | None) -> memoryview:
    """The part of `raw` from byte `start` on that holds whole events of `size` bytes each.

    Raises:
        DataError: the last event is cut off, and there is no `repairs` to count it in.
    """
    excess = (len(raw) - start) % size
    if not excess:
        return raw[start:]
    end = len(raw) - excess
    if repairs is None:
        raise DataError(
            f"{where}: byte {end:,}: truncated, the last event has {excess} of {size} bytes; use an undamaged copy"
        )
    repairs["truncated last event dropped"] += 1
    return raw[start:end]
