"""Recordings and archives that are not whole: each fault has the outcome that the table in `stbp.data.events` says."""

import struct
import sys
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest

from stbp.data import DataError, read_events
from stbp.data.events import archive
from stbp.data.events.formats import aedat2, aedat3, faery, nmnist, shd
from stbp.data.events.formats.reading import read
from stbp.data.events.formats.record import in_order

from . import files
from .test_formats import dat, evt2, write_shd

EVENTS: list[files.Event] = [(10, 1, 2, 1), (20, 3, 4, 0), (2_030, 5, 6, 1)]
AEDAT2_HEADER = len(files.aedat2([]))
AEDAT3_HEADER = len(files.AEDAT3_HEADER)

DECODERS = [
    pytest.param(nmnist.decode, files.nmnist, 0, 5, id="nmnist"),
    pytest.param(aedat2.decode, files.aedat2, AEDAT2_HEADER, 8, id="aedat2"),
    pytest.param(
        aedat3.decode, lambda e: files.AEDAT3_HEADER + files.aedat3_packet(e), AEDAT3_HEADER + 28, 8, id="aedat3"
    ),
]


def fault(function, *args) -> str:
    """The message of the error that is raised: one line."""
    with pytest.raises(DataError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("decode", "write", "start", "size"), DECODERS)
def test_a_truncated_last_event_is_an_error_or_dropped_and_counted(decode, write, start, size):
    raw = write(EVENTS)
    for cut in range(1, size):
        text = fault(decode, raw[:-cut], "the file")
        assert text.startswith("the file: byte ")
        assert "truncated" in text
        repairs = Counter()
        assert decode(raw[:-cut], "", repairs).tolist() == EVENTS[:-1]
        assert repairs.total() == 1
    if decode is not aedat3.decode:
        assert f"byte {start + 2 * size}: " in fault(decode, raw[:-1], "")


@pytest.mark.parametrize(("decode", "write", "start", "size"), DECODERS)
def test_a_late_event_is_an_error_or_sorted_in_and_counted(decode, write, start, size):
    raw = write([(1_500, 1, 1, 1), (2_000, 2, 2, 0), (1_500, 3, 3, 1), (1_000, 4, 4, 0), (2_000, 5, 5, 0)])
    text = fault(decode, raw, "the file")
    assert f"the file: byte {start + 2 * size}: time runs backwards, from 2,000 to 1,500 us (event 2)" in text
    repairs = Counter()
    assert decode(raw, "", repairs)["x"].tolist() == [4, 1, 3, 2, 5]
    assert repairs == {"late events sorted in": 2}


@pytest.mark.parametrize(("decode", "write", "start", "size"), DECODERS)
def test_a_clock_that_was_set_back_is_an_error_in_any_case(decode, write, start, size):
    raw = write([(1_500, 1, 1, 1), (2_001, 2, 2, 0), (2_000, 4, 4, 0), (1_000, 3, 3, 1)])
    text = fault(decode, raw, "the file", Counter())
    assert f"the file: byte {start + 3 * size}: time runs backwards, from 2,001 to 1,000 us (event 3)" in text


@pytest.mark.parametrize(("decode", "write", "start", "size"), DECODERS)
def test_a_recording_without_events_is_a_recording(decode, write, start, size):
    events = decode(write([]), "")
    files.check(events)
    assert len(events) == 0


@pytest.mark.parametrize(
    ("decode", "raw", "byte"),
    [
        pytest.param(nmnist.decode, files.nmnist([*EVENTS, (2_040, 0, 241, 0)]), 15, id="nmnist"),
        pytest.param(
            aedat2.decode, files.aedat2(EVENTS) + struct.pack(">ii", 0x10000, 2_040), AEDAT2_HEADER + 24, id="2"
        ),
        pytest.param(
            aedat2.decode, files.aedat2(EVENTS) + struct.pack(">ii", -1, 2_040), AEDAT2_HEADER + 24, id="2-sign"
        ),
        pytest.param(
            aedat3.decode,
            files.AEDAT3_HEADER + files.aedat3_packet(EVENTS) + files.aedat3_packet([(2_040, 128, 0, 0)]),
            AEDAT3_HEADER + 28 + 24 + 28,
            id="3-x",
        ),
        pytest.param(
            aedat3.decode,
            files.AEDAT3_HEADER + files.aedat3_packet([(2, 1, 1, 0), (2, 0, 128, 0)]),
            AEDAT3_HEADER + 28 + 8,
            id="3-y",
        ),
        pytest.param(
            aedat3.decode, files.AEDAT3_HEADER + files.aedat3_packet([(-2, 1, 1, 0)]), AEDAT3_HEADER + 28, id="3-time"
        ),
    ],
)
def test_an_event_off_the_sensor_is_an_error_in_any_case(decode, raw, byte):
    for repairs in (None, Counter()):
        assert f"the file: byte {byte}: " in fault(decode, raw, "the file", repairs)
        assert "off the sensor" in fault(decode, raw, "the file", repairs)


def test_the_byte_of_an_event_behind_markers_and_sync_events_is_right():
    marker = (0, 0, 240, 0)
    assert "byte 20: time" in fault(
        nmnist.decode, files.nmnist([marker, (9, 1, 1, 1), marker, EVENTS[0], (9, 1, 1, 1)]), ""
    )
    sync = struct.pack(">ii", 0x8000, 8)
    raw = files.aedat2([]) + sync + files.aedat2([(9, 1, 1, 1), (8, 1, 1, 1)])[AEDAT2_HEADER:]
    assert f"byte {AEDAT2_HEADER + 16}: time" in fault(aedat2.decode, raw, "")
    raw = files.AEDAT3_HEADER + files.aedat3_packet([(9, 1, 1, 1)] * 2, valid=0) + files.aedat3_packet(EVENTS[:0])
    raw += files.aedat3_packet([(9, 1, 1, 1), (8, 1, 1, 1)])
    assert f"byte {AEDAT3_HEADER + 28 + 16 + 28 + 28 + 8}: time" in fault(aedat3.decode, raw, "")


def test_a_recording_of_another_camera_is_named():
    assert "Davis346red" in fault(aedat2.decode, files.aedat2(EVENTS, "eu.seebetter.ini.chips.davis.Davis346red"), "")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"#!AER-DAT2.0\r\n", "not AEDAT 3.1"),
        (b"#!AER-DAT3.1\r\n#Format: RAW\r\n", "no line #!END-HEADER"),
        (files.AEDAT3_HEADER.replace(b"RAW", b"SerializedTS"), "only RAW is read"),
        (files.AEDAT3_HEADER + bytes(27), "a packet header has 27 of 28 bytes"),
        (files.AEDAT3_HEADER + bytes(28), "no packet begins here"),
        (files.AEDAT3_HEADER + struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 1, 2, 2) + bytes(16), "2 events of 1"),
        (files.AEDAT3_HEADER + struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 1, -1, 0), "-1 events of 1"),
        (files.AEDAT3_HEADER + struct.pack("<hhiiiiii", 1, 1, 16, 4, 0, 1, 1, 1) + bytes(16), "event size 16"),
        (files.AEDAT3_HEADER + struct.pack("<hhiiiiii", 1, 1, 8, 4, -1, 0, 0, 0), "overflows -1"),
        (files.AEDAT3_HEADER + struct.pack("<hhiiiiii", -1, 1, 8, 4, 0, 0, 0, 0), "type -1"),
    ],
)
def test_a_header_that_cannot_be_is_refused(raw, text):
    message = fault(aedat3.decode, raw, "the file")
    assert text in message
    assert message.startswith("the file: byte ")


def test_a_packet_that_announces_gigabytes_costs_no_more_memory_than_the_file():
    raw = files.AEDAT3_HEADER + struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 2**31 - 1, 2**31 - 1, 1) + bytes(64)
    tracemalloc.start()
    try:
        assert "2,147,483,647 events has 8" in fault(aedat3.decode, raw, "")
        assert len(aedat3.decode(raw, "", Counter())) == 0
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_what_is_no_recording_is_named(tmp_path):
    assert "no such file" in fault(read_events, tmp_path / "absent")
    assert "a folder" in fault(read_events, tmp_path)
    for name, content, text in (
        ("empty", b"", "empty"),
        ("page.html", b"<!DOCTYPE html><html></html>", "no recording of a known format"),
        ("short", b"abc", "no recording of a known format"),
        ("set.zip", b"PK\x05\x06" + bytes(18), "an archive of many recordings"),
        ("shd.h5", shd.MAGIC, "shd.read"),
    ):
        (tmp_path / name).write_bytes(content)
        message = fault(read_events, tmp_path / name)
        assert message.startswith(f"{tmp_path / name}: ")
        assert text in message


def test_read_events_mends_and_logs(tmp_path, caplog):
    path = tmp_path / "a.bin"
    path.write_bytes(files.nmnist([(9, 1, 1, 1), (8, 2, 2, 0)]) + b"abc")
    assert read_events(path)["x"].tolist() == [2, 1]
    assert caplog.messages == [f"{path}: 1 truncated last event dropped, 1 late events sorted in"]
    path.write_bytes(b"")
    assert len(read_events(path)) == 0


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "Train.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("Train/0/00001.bin", files.nmnist(EVENTS))
        archive.writestr("Train/0/recording", files.aedat2(EVENTS))
        archive.writestr("Train/0/00003.bin", evt2(EVENTS))
    return path


def test_a_member_is_read_without_unpacking(packed):
    assert read_events(packed / "Train/0/00001.bin").tolist() == EVENTS
    assert read(packed / "Train/0/recording").format == "AEDAT 2.0"
    assert "unpack the archive" in fault(read_events, packed / "Train/0/00003.bin")
    assert "no member 'Train/0/00002.bin'" in fault(read_events, packed / "Train/0/00002.bin")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_is_named_and_the_others_are_read(tmp_path, compression):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", compression) as made:
        made.writestr("a.bin", files.nmnist(EVENTS))
        made.writestr("b.bin", files.nmnist(EVENTS))
        offset = made.getinfo("b.bin").header_offset
    content = bytearray(path.read_bytes())
    content[offset + 30 + len("b.bin") + 1] ^= 255
    path.write_bytes(content)
    message = fault(read_events, path / "b.bin")
    assert message.startswith(f"{path}: byte {offset}: member b.bin: damaged")
    assert read_events(path / "a.bin").tolist() == EVENTS


@pytest.mark.parametrize(
    "name", ["../evil.bin", "a/../../evil.bin", "/evil.bin", "..\\evil.bin", "C:/evil.bin", "C:\\evil"]
)
def test_a_member_that_climbs_out_of_the_folder_condemns_the_archive(tmp_path, name):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("good.bin", files.nmnist(EVENTS))
        made.writestr(name, files.nmnist(EVENTS))
    message = fault(read_events, path / "good.bin")
    assert message.startswith(f"{path}: byte ")
    assert "climbs out of the folder" in message


def test_a_link_in_an_archive_condemns_it(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as made:
        link = zipfile.ZipInfo("link.bin")
        link.create_system = 3
        link.external_attr = 0o120777 << 16
        made.writestr(link, "/etc/passwd")
    assert "is a link" in fault(read_events, path / "link.bin")


def test_a_member_larger_than_allowed_or_encrypted_is_refused(packed, monkeypatch):
    content = packed.read_bytes()
    start = content.rindex(b"PK\x01\x02", 0, content.index(b"Train/0/recording", content.index(b"PK\x01\x02")))
    packed.write_bytes(content[: start + 8] + b"\1" + content[start + 9 :])
    assert "cannot be unpacked" in fault(read_events, packed / "Train/0/recording")
    monkeypatch.setattr(archive, "LARGEST", 14)
    assert "more than the 14 allowed" in fault(read_events, packed / "Train/0/00001.bin")


def test_an_archive_that_is_cut_off_or_missing_is_named(packed, tmp_path):
    packed.write_bytes(packed.read_bytes()[:-30])
    assert fault(read_events, packed / "Train/0/00001.bin").startswith(f"{packed}: not a whole zip file")
    with pytest.raises(DataError, match="no such file"), archive.opened(tmp_path / "absent.zip"):
        pass


@pytest.mark.parametrize(
    ("recordings", "labels", "text"),
    [
        ([([0.5], [700])], [0], "recording 0, spike 0: channel 700"),
        ([([], []), ([0.5, -0.5], [1, 1])], [0, 0], "recording 1, spike 1: channel 1 at -0.5 s"),
        ([([np.nan], [1])], [0], "channel 1 at nan s"),
        ([([4_000.0], [1])], [0], "at 4000.0 s"),
        ([([0.5, 0.6], [1])], [0], "recording 0 has 2 times and 1 units"),
        ([([0.5], [1])], [0, 1], "1 lists of times, 1 of units and 2 labels"),
    ],
)
def test_a_wrong_shd_file_is_named_with_the_spike(tmp_path, recordings, labels, text):
    path = tmp_path / "shd.h5"
    write_shd(path, recordings, labels)
    message = fault(shd.read, path)
    assert message.startswith(f"{path}: ")
    assert text in message


def test_hdf5_of_another_layout_or_damaged_is_named(tmp_path):
    path = tmp_path / "shd.h5"
    with h5py.File(path, "w") as file:
        file["labels"] = np.zeros(3)
    assert "no list spikes/times" in fault(shd.read, path)
    with h5py.File(path, "a") as file:
        file["spikes/times"] = np.zeros(3)
    assert "spikes/times holds float64" in fault(shd.read, path)
    path.write_bytes(path.read_bytes()[:200])
    assert "not a whole HDF5 file" in fault(shd.read, path)
    assert "not a whole HDF5 file" in fault(shd.read, tmp_path / "absent")


def test_an_hdf5_file_that_announces_a_billion_recordings_is_refused_before_they_are_read(tmp_path):
    path = tmp_path / "shd.h5"
    with h5py.File(path, "w") as file:
        for name, kind in (
            ("spikes/times", h5py.vlen_dtype(float)),
            ("spikes/units", h5py.vlen_dtype(int)),
            ("labels", int),
        ):
            file.create_dataset(name, 2**30, dtype=kind, chunks=(1024,))
    assert path.stat().st_size < 100_000
    assert "1,073,741,824 lists of times" in fault(shd.read, path)


def test_without_the_extra_the_message_says_how_to_install_it(tmp_path, monkeypatch):
    for name, content in (("a.dat", dat(EVENTS)), ("a.raw", evt2(EVENTS))):
        (tmp_path / name).write_bytes(content)
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "faery", None)
            assert "needs faery; install it with: pip install 'stbp[events]'" in fault(read_events, tmp_path / name)
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert "needs h5py; install it with: pip install 'stbp[events]'" in fault(shd.read, tmp_path / "a.h5")


def test_faery_never_lets_time_run_backwards(tmp_path):
    back: list[files.Event] = [(5_000_000, 1, 1, 0), (2_000, 2, 2, 1), (6_000_000, 3, 3, 0)]
    (tmp_path / "a.dat").write_bytes(dat(back))
    assert read_events(tmp_path / "a.dat")["t"].tolist() == [5_000_000, 5_000_000, 6_000_000]
    (tmp_path / "a.raw").write_bytes(evt2(back))
    assert read_events(tmp_path / "a.raw")["t"].tolist() == [5_000_000, 2**34 + 2_000, 2**34 + 6_000_000]


def test_late_events_of_which_no_byte_is_known_are_named_by_their_number():
    events = files.array([(1_000, 1, 1, 1), (5_000, 2, 2, 0), (4_500, 3, 3, 1)])
    assert in_order(events, "a", None, Counter())["x"].tolist() == [1, 3, 2]
    assert fault(in_order, events, "a", None, None) == (
        "a: time runs backwards, from 5,000 to 4,500 us (event 2); use an undamaged copy, or cut the recording there"
    )


def test_an_aedat_4_file_that_makes_faery_abort_is_a_data_error_like_any_other(samples, tmp_path):
    path = tmp_path / "a.aedat4"
    path.write_bytes((samples / "sample.aedat4").read_bytes()[:3000].replace(b"EVTS", b"EV\xdeS", 1))
    assert fault(read_events, path).startswith(f"{path}: faery cannot read it (it aborts, exit code ")
    path.write_bytes((samples / "sample.aedat4").read_bytes()[:3000])
    assert (
        fault(read_events, path) == f"{path}: faery cannot read it (failed to fill whole buffer); use an undamaged copy"
    )


def test_what_faery_refuses_is_a_data_error_with_the_file(tmp_path, monkeypatch):
    path = tmp_path / "a.raw"
    path.write_bytes(evt2([(70, 640, 2, 1)]))
    assert fault(read_events, path).startswith(f"{path}: faery cannot read it")
    path.write_bytes(b"#!AER-DAT4.0\r\n" + bytes(100))
    assert fault(read_events, path).startswith(f"{path}: faery cannot read it")
    path.write_bytes(dat([(1, 1, 1, 0), (2, 2, 2, 5)]))
    assert "polarity 5 of event 1 is neither 0 nor 1" in fault(read_events, path)
    path.write_bytes(evt2(EVENTS))
    monkeypatch.setattr(faery, "MOST", 2)
    assert "more than the 2 events allowed" in fault(read_events, path)
