"""Many recordings in one go against the same ones alone."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbp.data.error import DataError
from stbp.data.events.formats import nmnist
from stbp.data.events.formats.nmnist_bytes import writer
from stbp.ops import native

from ...isas import isa as isa

EVENTS = st.lists(
    st.tuples(st.integers(0, 255), st.sampled_from([0, 33, 239, 240]), st.integers(0, 2**24 - 1)), max_size=6
)


pytestmark = [pytest.mark.usefixtures("isa"), pytest.mark.slow]


def decode_all(raws: list[bytes], names: list[str]) -> dict[str, np.ndarray]:
    return nmnist.decode_all(iter(raws), list(map(len, raws)), names)


def written(raw: bytes) -> bool:
    """Whether the kernel takes the recording."""
    room = len(raw) // nmnist.SIZE
    return writer({name: np.empty(room, np.uint32 if name == "t" else np.uint8) for name in "txyp"})(raw, 0)


def raw(events: list[tuple[int, int, int]], in_order: bool) -> bytes:
    events = sorted(events, key=lambda event: event[2] % 2**23) if in_order else events
    return b"".join(bytes([x, y]) + word.to_bytes(3, "big") for x, y, word in events)


@given(
    recordings=st.lists(EVENTS, min_size=1, max_size=5), in_order=st.booleans(), excess=st.sampled_from([0, 0, 0, 3])
)
def test_many_recordings_decode_as_each_alone(recordings, in_order, excess):
    raws = [raw(events, in_order) for events in recordings]
    raws[-1] += bytes(excess)
    names = [f"{n}.bin" for n in range(len(raws))]
    try:
        alone = [nmnist.decode(content, name) for content, name in zip(raws, names, strict=True)]
    except DataError as error:
        with pytest.raises(DataError, match=f"^{re.escape(str(error))}$"):
            decode_all(raws, names)
        return
    found = decode_all(raws, names)
    assert found["length"].tolist() == [len(events) for events in alone]
    for name in "txyp":
        assert found[name].tolist() == np.concatenate(alone)[name].tolist()


def test_time_may_run_back_between_recordings_and_not_within_one():
    late, early = bytes([1, 2, 0, 0, 9]), bytes([1, 2, 0, 0, 3])
    assert decode_all([late, b"", early + late, early], list("abcd"))["t"].tolist() == [9, 3, 9, 3]
    for raws in ([early, late + early, late], [late + early], [b"", early, late, b"", late + early]):
        with pytest.raises(DataError, match="byte 5: time runs backwards"):
            decode_all(raws, list("abcde")[: len(raws)])


@given(lengths=st.lists(st.integers(0, 300), max_size=9), seed=st.integers(0, 2**32 - 1))
def test_usual_recordings_decode_in_one_pass_as_each_alone(lengths, seed):
    random = np.random.default_rng(seed)
    raws = []
    for n in lengths:
        t, p = np.sort(random.integers(0, 2**23, n)), random.integers(0, 2, n)
        places = zip(random.integers(0, 256, n), random.integers(0, 240, n), p << 23 | t, strict=True)
        raws.append(b"".join(bytes([x, y]) + int(word).to_bytes(3, "big") for x, y, word in places))
    alone = np.concatenate([nmnist.decode(b"", ""), *(nmnist.decode(content, "") for content in raws)])
    assert all(written(content) == (native.isa() is not None) for content in raws)
    found = decode_all(raws, [""] * len(raws))
    assert found["length"].tolist() == lengths
    assert {name: found[name].dtype for name in "txyp"} == {"t": np.uint32, "x": np.uint8, "y": np.uint8, "p": np.uint8}
    for name in "txyp":
        assert np.array_equal(found[name], alone[name])


USUAL = bytes([1, 2, 128, 0, 5])


@pytest.mark.parametrize(
    "odd",
    [
        USUAL + bytes([0, 240, 0, 0, 6]),
        USUAL + bytes([0, 255, 0, 0, 6]),
        USUAL + USUAL[:4],
        USUAL + bytes([1, 2, 128, 0, 4]),
        bytes(1),
    ],
    ids=["marker", "off the sensor", "cut off", "time back", "one byte"],
)
def test_the_kernel_leaves_anything_odd_to_numpy(odd):
    assert written(USUAL) == (native.isa() is not None)
    assert not written(odd)


def test_the_kernel_writes_within_its_columns():
    columns = {name: np.zeros(3, np.uint32 if name == "t" else np.uint8) for name in "txyp"}
    if native.isa() is not None:
        for content, first in ((USUAL * 2, 2), (USUAL, -1), (USUAL, 3)):
            with pytest.raises(ValueError, match="do not fit 3 elements"):
                writer(columns)(content, first)
    assert not any(values.any() for values in columns.values())


def test_bytes_may_come_as_a_bytearray():
    assert decode_all([bytearray(USUAL), USUAL], ["a", "b"])["t"].tolist() == [5, 5]  # pyright: ignore[reportArgumentType]


def test_columns_end_where_the_events_do():
    marked = USUAL + bytes([0, 240, 0, 0, 6]) + USUAL
    found = decode_all([marked, USUAL], ["a", "b"])
    assert found["t"].tolist() == [5, 5 + nmnist.STEP, 5]
    assert found["length"].tolist() == [2, 1]


def test_a_time_that_a_column_cannot_hold_is_named():
    late = bytes([0, 240, 0, 0, 0]) * (nmnist.LONGEST // nmnist.STEP) + USUAL
    with pytest.raises(DataError, match=r"^b: event 0, t = 4294967301, is later than 2\^32 us, 71 minutes; cut"):
        decode_all([USUAL, late], ["a", "b"])


def test_a_recording_that_has_grown_is_refused():
    with pytest.raises(DataError, match=r"^a: 10 bytes where 5 were found before"):
        nmnist.decode_all([USUAL * 2], [5], ["a"])
