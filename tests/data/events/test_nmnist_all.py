"""Many recordings in one go against the same ones alone."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbp.data.error import DataError
from stbp.data.events import nmnist

EVENTS = st.lists(
    st.tuples(st.integers(0, 255), st.sampled_from([0, 33, 239, 240]), st.integers(0, 2**24 - 1)), max_size=6
)


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
            nmnist.decode_all(raws, names)
        return
    found = nmnist.decode_all(raws, names)
    assert found["length"].tolist() == [len(events) for events in alone]
    for name in "txyp":
        assert found[name].tolist() == np.concatenate(alone)[name].tolist()


def test_time_may_run_back_between_recordings_and_not_within_one():
    late, early = bytes([1, 2, 0, 0, 9]), bytes([1, 2, 0, 0, 3])
    assert nmnist.decode_all([late, b"", early + late, early], list("abcd"))["t"].tolist() == [9, 3, 9, 3]
    for raws in ([early, late + early, late], [late + early], [b"", early, late, b"", late + early]):
        with pytest.raises(DataError, match="byte 5: time runs backwards"):
            nmnist.decode_all(raws, list("abcde")[: len(raws)])
