"""Any bytes give events that satisfy the rules, or a DataError. `tests/fuzz/decoders.py` goes on for longer."""

from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stbp.data import DataError
from stbp.data.events.formats import aedat2, aedat3, nmnist, shd
from stbp.data.events.formats.reading import read

from . import files
from .test_formats import dat, evt2, write_shd

pytestmark = pytest.mark.slow

EVENTS: list[files.Event] = [(10, 1, 2, 1), (20, 127, 4, 0), (20, 5, 127, 1), (900_000, 33, 33, 0)]
WHOLE = {
    "nmnist": (nmnist.decode, files.nmnist([*EVENTS, (0, 0, 240, 0), (2**23 - 1, 1, 2, 1)])),
    "aedat2": (aedat2.decode, files.aedat2(EVENTS)),
    "aedat3": (
        aedat3.decode,
        files.AEDAT3_HEADER + files.aedat3_packet(EVENTS) + files.aedat3_special(7) + files.aedat3_packet(EVENTS, 1),
    ),
}
STARTS = {"nmnist": b"", "aedat2": aedat2.MAGIC + b"\r\n", "aedat3": files.AEDAT3_HEADER}


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with some bytes changed, a piece cut out or doubled, and the end cut off."""
    found = bytearray(content)
    for _ in range(draw(st.integers(0, 4))):
        found[draw(st.integers(0, len(found) - 1))] = draw(st.integers(0, 255))
    begin, end = sorted(draw(st.tuples(st.integers(0, len(found)), st.integers(0, len(found)))))
    match draw(st.sampled_from(["as it is", "cut out", "doubled", "end cut off"])):
        case "cut out":
            del found[begin:end]
        case "doubled":
            found[end:end] = found[begin:end]
        case "end cut off":
            del found[end:]
    return bytes(found)


def decodes_or_is_refused(decode, raw: bytes) -> None:
    for repairs in (None, Counter()):
        with suppress(DataError):
            events = decode(raw, "file", repairs)
            files.check(events)
            assert len(events) <= len(raw) // 5
            if repairs is None:
                assert decode(raw, "file", Counter()).tobytes() == events.tobytes()


@settings(max_examples=400)
@pytest.mark.parametrize("name", WHOLE)
@given(data=st.data())
def test_any_damage_gives_valid_events_or_a_data_error(name, data):
    decode, content = WHOLE[name]
    decodes_or_is_refused(decode, data.draw(damaged(content)))


@settings(max_examples=400)
@pytest.mark.parametrize("name", WHOLE)
@given(raw=st.binary(max_size=300))
def test_any_bytes_give_valid_events_or_a_data_error(name, raw):
    decodes_or_is_refused(WHOLE[name][0], STARTS[name] + raw)


@settings(max_examples=150)
@given(
    times=st.lists(st.integers(0, 2**32 - 1), max_size=30).map(sorted),
    pixels=st.lists(st.tuples(st.integers(0, 255), st.integers(0, 239), st.integers(0, 1)), min_size=30, max_size=30),
)
def test_any_events_are_the_same_when_written_and_read(times, pixels):
    events = [(t, *pixel) for t, pixel in zip(times, pixels, strict=False)]
    raw = nmnist.encode(files.array(events))
    assert nmnist.decode(raw, "").tolist() == events
    if not times or times[-1] < 2**23:
        assert raw == files.nmnist(events)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("events")


@settings(max_examples=100)
@pytest.mark.parametrize("write", [evt2, dat])
@given(data=st.data())
def test_damage_to_what_faery_reads_gives_valid_events_or_a_data_error(scratch, write, data):
    path = scratch / "recording.raw"
    path.write_bytes(data.draw(damaged(write(EVENTS))))
    with suppress(DataError):
        files.check(read(path).events)


@settings(max_examples=6)
@given(data=st.data())
def test_damage_to_a_real_aedat_4_file_gives_valid_events_or_a_data_error(samples, scratch, data):
    path = scratch / "recording.aedat4"
    path.write_bytes(data.draw(damaged((samples / "sample.aedat4").read_bytes()[:100_000])))
    with suppress(DataError):
        files.check(read(path).events)


@settings(max_examples=100)
@given(data=st.data())
def test_damage_to_hdf5_gives_valid_events_or_a_data_error(scratch, data):
    path = scratch / "shd.h5"
    if not path.exists():
        write_shd(path, [([0.0, 0.5], [0, 699]), ([], []), ([0.25], [7])], [19, 0, 4])
    (scratch / "damaged.h5").write_bytes(data.draw(damaged(path.read_bytes())))
    with suppress(DataError):
        found = shd.read(scratch / "damaged.h5", Counter())
        for i in range(len(found)):
            files.check(found[i])
