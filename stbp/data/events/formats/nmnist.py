"""The 40-bit events of N-MNIST and N-Caltech101 (`.bin`).

Five bytes an event, big-endian, nothing before or after: x (8 bits), y (8), polarity (1, 1 = ON), time (23, in
microseconds). Where y is 240, one below the last row of the ATIS sensor, the five bytes are no event: the clock has
overflowed, and 2^13 us are added to all times behind. Source: the description beside the data sets,
https://www.garrickorchard.com/datasets/n-mnist, and G. Orchard, A. Jayawant, G. K. Cohen, N. Thakor, Converting Static
Image Datasets to Spiking Neuromorphic Datasets Using Saccades, Frontiers in Neuroscience 9:437, 2015.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from stbp.data.error import DataError
from stbp.data.events.formats.record import EVENT, Repairs, empty, in_order, whole

SIZE = 5
OVERFLOW = 240
"""The y of an overflow marker."""
STEP = 1 << 13
"""Microseconds that a marker adds."""
LAST = (1 << 23) - 1
"""The latest time that fits into an event without a marker before it, in microseconds."""
LONGEST = 1 << 32
"""Times, 71 minutes, that `encode` refuses (each 8 ms past `LAST` cost a marker) and that columns cannot hold."""

# y once more in the upper byte of the word that holds polarity and time: numpy has no integer of three bytes
_FILE = np.dtype({"names": ["x", "y", "word"], "formats": ["u1", "u1", ">u4"], "offsets": [0, 1, 1], "itemsize": SIZE})


def decode(raw: bytes | bytearray | memoryview, where: str, repairs: Repairs | None = None) -> np.ndarray:
    """The events of an N-MNIST recording.

    Args:
        raw: the content of a `.bin` file; no bytes are a recording without events.
        where: the file, for the message.
        repairs: where to count what was mended; without it nothing is.

    Returns:
        `[N]` of `EVENT`, in the order of time.

    Raises:
        DataError: the last event is cut off, an event lies off the sensor, or time runs backwards.
    """
    read = np.frombuffer(whole(memoryview(raw), 0, SIZE, where, repairs), _FILE)
    word = read["word"].astype(np.uint32)
    row = word >> 24
    off = np.flatnonzero(row > OVERFLOW)
    if len(off):
        i = int(off[0])
        raise DataError(
            f"{where}: byte {SIZE * i:,}: y = {row[i]} is off the sensor of {OVERFLOW} rows ({len(off):,} of"
            f" {len(read):,} events are); this is no N-MNIST recording, or a damaged one"
        )
    t = (word & LAST).astype(np.int64)
    place = None
    marker = row == OVERFLOW
    if marker.any():
        t += np.cumsum(marker) * STEP
        place = np.flatnonzero(~marker)
        read, row, word, t = read[place], row[place], word[place], t[place]
    events = empty(len(read))
    events["t"], events["x"], events["y"], events["p"] = t, read["x"], row, word >> 23 & 1
    return in_order(events, where, lambda i: SIZE * (i if place is None else int(place[i])), repairs)


def decode_all(raws: Iterable[bytes | bytearray], sizes: Sequence[int], where: Sequence[str]) -> dict[str, np.ndarray]:
    """The events of several recordings, one behind the other, as columns: `t` (uint32), `x`, `y`, `p` (uint8).

    The same events as from `decode`, without repairs, in a tenth of the time: recordings without markers and faults are
    read by a compiled kernel where there is one.

    Args:
        raws: the content of `.bin` files; each is asked for when the one before it has been decoded and forgotten.
        sizes: the number of bytes of each.
        where: the files, for the message.

    Returns:
        the columns, and in `length` the number of events of each recording.

    Raises:
        DataError: as `decode`; an event is later than 2^32 us; a recording is longer than `sizes` says.
    """
    from stbp.data.events.formats.nmnist_bytes import writer  # torch, which reading a file does not need

    room = sum(size // SIZE for size in sizes)
    found = {name: np.empty(room, np.uint32 if name == "t" else np.uint8) for name in "txyp"}
    write, ends = writer(found), [0]
    for raw, size, name in zip(raws, sizes, where, strict=True):
        if len(raw) > size:
            raise DataError(f"{name}: {len(raw):,} bytes where {size:,} were found before; start again")
        if write(raw, ends[-1]):
            ends.append(ends[-1] + len(raw) // SIZE)
            continue
        events = decode(raw, name)
        if (events["t"] >= LONGEST).any():
            e = int(np.argmax(events["t"] >= LONGEST))
            raise DataError(
                f"{name}: event {e:,}, t = {events['t'][e]}, is later than 2^32 us, 71 minutes; cut the recording"
            )
        ends.append(ends[-1] + len(events))
        for column in "txyp":
            found[column][ends[-2] : ends[-1]] = events[column]
    return {**{name: values[: ends[-1]] for name, values in found.items()}, "length": np.diff(ends)}


def encode(events: np.ndarray) -> bytes:
    """The content of a `.bin` file; `decode` gives the same events again.

    Markers stand only where a time needs more than 23 bits. So `encode(decode(raw))` is `raw`, byte for byte, for every
    recording without markers (all of N-MNIST's 300 ms), and the same events for any other.

    Args:
        events: `[N]` of `EVENT`, in the order of time, within 256 columns and 240 rows and `[0, LONGEST)` us.

    Raises:
        DataError: an event does not fit into the format.
    """
    _check(events)
    needed = np.maximum(-((LAST - events["t"]) // STEP), 0)  # markers before each event, rounded up
    markers = np.diff(needed, prepend=0)
    place = np.arange(len(events)) + needed
    written = np.zeros(len(events) + int(markers.sum()), _FILE)
    written["word"] = OVERFLOW << 24
    written["x"][place] = events["x"]
    t = events["t"] - needed * STEP
    written["word"][place] = events["y"].astype(np.int64) << 24 | events["p"].astype(np.int64) << 23 | t
    return written.tobytes()


def encode_all(columns: dict[str, np.ndarray]) -> list[bytes]:
    """The content of a `.bin` file for each of several recordings, given as `decode_all` gives them.

    Raises:
        DataError: an event is later than `LAST` or does not fit into the format otherwise.
    """
    t, y = columns["t"], columns["y"]
    if t.max(initial=0) > LAST or y.max(initial=0) >= OVERFLOW:
        raise DataError(f"recordings must lie in {OVERFLOW} rows and {LAST} us; got {y.max()} and {t.max()}")
    written = np.empty(len(t), _FILE)
    written["word"] = y.astype(np.uint32) << 24 | columns["p"].astype(np.uint32) << 23 | t
    written["x"] = columns["x"]
    content, ends = written.tobytes(), np.cumsum(columns["length"]) * SIZE
    return [content[end - SIZE * n : end] for n, end in zip(columns["length"].tolist(), ends.tolist(), strict=True)]


def _check(events: np.ndarray) -> None:
    if events.dtype != EVENT or events.ndim != 1:
        raise DataError(f"events must be one row of {EVENT}, got {events.dtype} of shape {events.shape}")
    t = events["t"]
    rules = (
        ("t must be in 0..2^32-1 us", (t < 0) | (t >= LONGEST)),
        ("t must not run backwards", np.diff(t, prepend=t[:1]) < 0),
        ("x must be below 256", events["x"] > 255),
        (f"y must be below {OVERFLOW}", events["y"] >= OVERFLOW),
        ("p must be 0 or 1", events["p"] > 1),
    )
    for rule, broken in rules:
        if broken.any():
            i = int(np.argmax(broken))
            raise DataError(f"an N-MNIST recording cannot hold event {i:,}, {events[i]}: {rule}")
