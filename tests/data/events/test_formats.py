"""Recordings that are whole: every format gives the events that are in the file."""

import re
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest

from stbp.data import DataError, read_events, write_events
from stbp.data.events.formats import aedat2, aedat3, nmnist, shd
from stbp.data.events.formats.reading import read

from . import files

EVENTS: list[files.Event] = [(0, 0, 0, 0), (5, 33, 0, 1), (5, 0, 33, 0), (300_000, 17, 4, 1), (2**23 - 1, 33, 33, 1)]
ON_A_DVS128: list[files.Event] = [(0, 0, 0, 0), (7, 127, 0, 1), (7, 0, 127, 0), (2**31 - 1, 64, 3, 1)]


def test_nmnist_recordings_are_what_the_description_says():
    raw = bytes([3, 4, 0x80 | 0x12, 0x34, 0x56, 5, 6, 0x12, 0x34, 0x57])
    assert nmnist.decode(raw, "").tolist() == [(0x123456, 3, 4, 1), (0x123457, 5, 6, 0)]
    assert nmnist.decode(files.nmnist(EVENTS), "").tolist() == EVENTS
    assert nmnist.encode(files.array(EVENTS)) == files.nmnist(EVENTS)


@pytest.mark.slow
def test_all_real_recordings_agree_with_a_decoder_that_goes_event_by_event(recordings):
    assert len(recordings) == 1100
    for name, raw in recordings.items():
        assert nmnist.decode(raw, name).tolist() == files.nmnist_events(raw), name


def test_all_real_recordings_are_written_back_byte_for_byte(recordings):
    for name, raw in recordings.items():
        assert nmnist.encode(nmnist.decode(raw, name)) == raw, name
    assert sum(map(len, recordings.values())) == 5 * 4_518_827


def test_an_overflow_marker_adds_to_all_later_times_and_is_no_event():
    marker = (77, 9, 240, 1)
    raw = files.nmnist([(10, 1, 2, 1), marker, (20, 3, 4, 0), marker, marker, (30, 5, 6, 1), marker])
    wanted = [(10, 1, 2, 1), (20 + 2**13, 3, 4, 0), (30 + 3 * 2**13, 5, 6, 1)]
    assert nmnist.decode(raw, "").tolist() == wanted == files.nmnist_events(raw)


def test_times_beyond_23_bits_are_written_with_markers_that_both_decoders_understand():
    limit = 2**23
    times = [0, limit - 1, limit, limit + 2**13 - 1, limit + 2**13, limit + 2**13, 2**25, 2**32 - 1]
    events = files.array((t, i, 239 - i, i % 2) for i, t in enumerate(times))
    raw = nmnist.encode(events)
    assert nmnist.decode(raw, "").tolist() == events.tolist() == files.nmnist_events(raw)
    few = nmnist.encode(events[:4])
    assert len(few) == 5 * (4 + 1)  # one marker lasts for 2^13 us: no more are written than are needed


@pytest.mark.parametrize(
    ("event", "rule"),
    [
        ((-1, 0, 0, 0), "t must be in"),
        ((2**32, 0, 0, 0), "t must be in"),
        ((3, 256, 0, 0), "x must be below 256"),
        ((3, 0, 240, 0), "y must be below 240"),
        ((3, 0, 0, 2), "p must be 0 or 1"),
    ],
)
def test_an_event_that_the_format_cannot_hold_is_named(event, rule):
    with pytest.raises(DataError, match=f"event 1, .*{rule}"):
        nmnist.encode(files.array([(0, 0, 0, 0), event]))


def test_events_out_of_order_or_of_another_type_are_not_written():
    with pytest.raises(DataError, match=r"event 1, .*t must not run backwards"):
        nmnist.encode(files.array([(9, 0, 0, 0), (8, 0, 0, 0)]))
    with pytest.raises(DataError, match="one row of"):
        nmnist.encode(np.zeros(3))


def test_aedat_2_is_read_as_jaer_does():
    header = b"#!AER-DAT2.0\r\n"
    assert aedat2.decode(header + struct.pack(">ii", 0, 9), "").tolist() == [(9, 127, 127, 1)]
    assert aedat2.decode(header + struct.pack(">ii", 0b0000001_0000010_1, 9), "").tolist() == [(9, 125, 126, 0)]
    assert aedat2.decode(files.aedat2(ON_A_DVS128), "").tolist() == ON_A_DVS128


def test_aedat_2_leaves_sync_events_out_and_counts_them():
    raw = files.aedat2(ON_A_DVS128[:2]) + struct.pack(">ii", 0x8000, 8) + files.aedat2([(9, 1, 2, 1)]).split(b"\n")[-1]
    repairs = Counter()
    assert aedat2.decode(raw, "", repairs).tolist() == [*ON_A_DVS128[:2], (9, 1, 2, 1)]
    assert repairs == {"sync events left out": 1}


def test_aedat_3_is_what_the_description_says():
    data = (1 << 17) | (2 << 2) | (1 << 1) | 1
    packet = struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 1, 1, 1) + struct.pack("<Ii", data, 77)
    assert aedat3.decode(files.AEDAT3_HEADER + packet, "").tolist() == [(77, 1, 2, 1)]
    assert aedat3.sensor(files.AEDAT3_HEADER) == (128, 128)


def test_aedat_3_puts_packets_together_and_leaves_out_what_is_no_valid_polarity_event():
    raw = files.AEDAT3_HEADER + b"".join(
        [
            files.aedat3_special(0),
            files.aedat3_packet(ON_A_DVS128[:2]),
            files.aedat3_packet([]),
            files.aedat3_packet([(8, 1, 1, 1)], valid=0),
            files.aedat3_packet(ON_A_DVS128[2:]),
            files.aedat3_packet([(5, 9, 8, 1)], overflow=3),
        ]
    )
    repairs = Counter()
    assert aedat3.decode(raw, "", repairs).tolist() == [*ON_A_DVS128, (3 * 2**31 + 5, 9, 8, 1)]
    assert repairs == {"packets of other types left out": 1, "events marked as not valid left out": 1}


def write_shd(path: Path, recordings: list[tuple[list[float], list[int]]], labels: list[int]) -> None:
    """`root |-spikes |-times[] |-units[] |-labels[]`: the description on compneuro.net."""
    with h5py.File(path, "w") as file:
        for name, kind, column in (("times", np.float16, 0), ("units", np.uint16, 1)):
            lists = file.create_dataset(f"spikes/{name}", len(recordings), dtype=h5py.vlen_dtype(kind))
            for i, recording in enumerate(recordings):
                lists[i] = np.array(recording[column], kind)
        file["labels"] = np.array(labels, np.uint16)


def test_shd_holds_channels_in_x_and_microseconds_in_t(tmp_path):
    write_shd(tmp_path / "shd.h5", [([0.0, 0.5, 1.25], [0, 699, 3]), ([], []), ([0.25], [7])], [19, 0, 4])
    repairs = Counter()
    found = shd.read(tmp_path / "shd.h5", repairs)
    assert found[0].tolist() == [(0, 0, 0, 1), (500_000, 699, 0, 1), (1_250_000, 3, 0, 1)]
    assert found[1].tolist() == []
    assert found[2].tolist() == [(250_000, 7, 0, 1)]
    assert found.labels.tolist() == [19, 0, 4]
    assert len(found) == 3
    assert not repairs


def test_shd_recordings_are_sorted_each_by_itself(tmp_path):
    write_shd(
        tmp_path / "shd.h5", [([0.5, 0.25], [1, 2]), ([0.125, 0.5], [3, 4]), ([1.0, 0.0, 0.5], [5, 6, 7])], [0, 0, 0]
    )
    repairs = Counter()
    found = shd.read(tmp_path / "shd.h5", repairs)
    assert [found[i]["x"].tolist() for i in range(3)] == [[2, 1], [3, 4], [6, 7, 5]]
    assert repairs == {"recordings sorted by time": 2}


def evt2(events: list[files.Event]) -> bytes:
    """Words of 32 bits, little-endian: type 8 and the time's upper 28 bits; type p, 6 lower bits, x (11), y (11).
    Source: https://docs.prophesee.ai/stable/data/encoding_formats/evt2.html."""
    words = b"".join(
        struct.pack("<II", 8 << 28 | t >> 6, p << 28 | (t & 63) << 22 | x << 11 | y) for t, x, y, p in events
    )
    return b"% evt 2.0\n% geometry 640x480\n% end\n" + words


def dat(events: list[files.Event]) -> bytes:
    """Type 12, size 8, then time (32 bits) and y (14), x (14), p (4 bits), little-endian.
    Source: https://docs.prophesee.ai/stable/data/file_formats/dat.html."""
    header = b"% Data file containing CD events.\n% Version 2\n% Width 640\n% Height 480\n"
    return header + bytes([12, 8]) + b"".join(struct.pack("<II", t, p << 28 | y << 14 | x) for t, x, y, p in events)


@pytest.mark.parametrize("write", [evt2, dat])
def test_faery_reads_what_the_descriptions_say(tmp_path, write):
    events = [(70, 1, 2, 1), (7000, 639, 479, 0), (7001, 0, 0, 1)]
    (tmp_path / "recording").write_bytes(write(events))
    found = read(tmp_path / "recording")
    assert found.events.tolist() == events
    assert found.sensor == (640, 480)


@pytest.mark.parametrize(
    ("name", "kind", "sensor", "number", "duration", "extent"),
    [
        ("evt2.raw", "EVT 2", None, 539_481, 50_000, (600, 476)),
        ("evt3.raw", "EVT 3", None, 219_596, 8_811, (1280, 720)),
        ("ncars.dat", "DAT", None, 2_009, 99_952, (78, 42)),
        ("sample.aedat4", "AEDAT 4", (320, 240), 111_954, 589_917, (320, 240)),
        ("nmnist-extra.bin", "N-MNIST", None, 4_325, 310_521, (34, 34)),
    ],
)
def test_real_samples_decode(samples, name, kind, sensor, number, duration, extent):
    found = read(samples / name)
    files.check(found.events)
    assert (found.format, found.sensor, len(found.events)) == (kind, sensor, number)
    assert found.events["t"][-1] - found.events["t"][0] == duration
    assert (found.events["x"].max() + 1, found.events["y"].max() + 1) == extent
    assert not found.repairs


def test_real_evt_2_agrees_with_a_decoder_that_goes_word_by_word(samples):
    raw = (samples / "evt2.raw").read_bytes()
    header = re.match(rb"(% [^\n]*\n)*", raw)
    assert header is not None
    wanted: list[files.Event] = []
    high = None
    for (word,) in struct.iter_unpack("<I", raw[header.end() : header.end() + 400_000]):
        if word >> 28 == 8:
            high = word & (1 << 28) - 1
        elif word >> 28 < 2 and high is not None:
            wanted.append((high << 6 | word >> 22 & 63, word >> 11 & 2047, word & 2047, word >> 28))
    assert read_events(samples / "evt2.raw")[: len(wanted)].tolist() == wanted


def test_the_format_is_told_by_the_content(tmp_path):
    for content, kind in (
        (files.aedat2(ON_A_DVS128), "AEDAT 2.0"),
        (files.AEDAT3_HEADER + files.aedat3_packet(ON_A_DVS128), "AEDAT 3.1"),
        (files.nmnist(EVENTS), "N-MNIST"),
        (evt2(EVENTS), "EVT 2"),
        (dat(EVENTS), "DAT"),
    ):
        for name in ("recording", "recording.bin", "recording.aedat"):
            (tmp_path / name).write_bytes(content)
            assert read(tmp_path / name).format == kind


def test_what_is_written_is_read_again(tmp_path):
    write_events(tmp_path / "a.bin", files.array(EVENTS))
    assert read_events(str(tmp_path / "a.bin")).tolist() == EVENTS
    with pytest.raises(DataError, match=r"let the name end in \.bin"):
        write_events(tmp_path / "a.aedat", files.array(EVENTS))
    with pytest.raises(DataError, match="cannot be written"):
        write_events(tmp_path / "absent" / "a.bin", files.array(EVENTS))


def test_importing_the_package_stays_light():
    code = "import stbp.data.events, sys; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'faery', 'h5py')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    code = "from stbp.data import read_events; import sys; sys.exit(any(m in sys.modules for m in ('torch', 'h5py')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
