"""Many recordings in one go against the same ones alone."""

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
        with pytest.raises(DataError) as same:
            nmnist.decode_all(raws, names)
        assert str(same.value) == str(error)
        return
    found = nmnist.decode_all(raws, names)
    assert found["length"].tolist() == [len(events) for events in alone]
    for name in "txyp":
        assert found[name].tolist() == np.concatenate(alone)[name].tolist()
