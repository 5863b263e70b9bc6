import os
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pytest

from stbp.data.error import DataError
from stbp.data.events import archive, source
from tests.data.conftest import REAL_DATA
from tests.data.events.sets import write_tree, write_zip

MEMBERS = {
    "Train/": b"",
    "Train/5/00003.bin": b"c" * 10,
    "Train/10/00001.bin": b"a" * 5,
    "Train/9/00002.bin": b"",
    "Train/readme.txt": b"about",
    "__MACOSX/Train/5/._00003.bin": b"fork",
    "Train/.DS_Store": b"x",
}


def contents(path: Path) -> dict[str, bytes]:
    with source.opened(path) as found:
        return {f"{recording.label}/{recording.name}": bytes(found.read(recording)) for recording in found.recordings}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_recordings_of_an_archive_come_by_name_with_label_and_content(tmp_path: Path, method: int):
    write_zip(tmp_path / "Train.zip", MEMBERS, method)
    assert list(contents(tmp_path / "Train.zip").items()) == [
        ("10/00001.bin", b"a" * 5),
        ("9/00002.bin", b""),
        ("5/00003.bin", b"c" * 10),
    ]
    with source.opened(tmp_path / "Train.zip") as found:
        assert found.left_out == ["Train/readme.txt"]


def test_a_tree_gives_the_same_as_its_archive(tmp_path: Path):
    members = {name: content for name, content in MEMBERS.items() if not name.endswith("/")}
    write_zip(tmp_path / "Train.zip", members)
    write_tree(tmp_path, members)
    assert list(contents(tmp_path / "Train").items()) == list(contents(tmp_path / "Train.zip").items())
    with source.opened(tmp_path / "Train") as found:
        assert found.left_out == ["readme.txt"]


@pytest.mark.parametrize(
    ("files", "place"),
    [
        (["Train.zip", "Test.zip"], "."),
        (["Train/1/1.bin", "Test/1/2.bin"], "."),
        (["N-MNIST/train.zip", "N-MNIST/test.zip"], "N-MNIST"),
        (["n-mnist/Train/1/1.bin", "n-mnist/Test/1/2.bin"], "n-mnist"),
        (["n-mnist-1100/Train.zip", "n-mnist-1100/Test.zip", "mnist/Train.zip", "mnist/Test.zip"], "n-mnist-1100"),
        (["n-mnist/Train.zip", "n-mnist/Test.zip", "n-mnist-1100/Train.zip", "n-mnist-1100/Test.zip"], "n-mnist"),
        (["n-mnist/Train.zip", "n-mnist-1100/Train.zip", "n-mnist-1100/Test.zip"], "n-mnist-1100"),
        (["Train/1/1.png", "Test/1/2.png"], None),
        (["Train.zip"], None),
        ([], None),
    ],
)
def test_a_set_is_found_by_what_a_folder_holds(tmp_path: Path, files: list[str], place: str | None):
    for name in files:
        write_zip(tmp_path / name, {}) if name.endswith(".zip") else write_tree(tmp_path, {name: b""})
    found = source.find(tmp_path)
    if place is None:
        assert found is None
        return
    assert found is not None
    assert [path.parent for path in found] == [tmp_path / place] * 2
    assert [path.stem.lower() for path in found] == ["train", "test"]


def test_archives_go_before_trees(tmp_path: Path):
    write_tree(tmp_path, {"Train/1/1.bin": b"", "Test/1/2.bin": b""})
    for name in ("Train.zip", "Test.zip"):
        write_zip(tmp_path / name, {})
    assert source.find(tmp_path) == (tmp_path / "Train.zip", tmp_path / "Test.zip")


@pytest.mark.parametrize(
    "name", ["../../5/00001.bin", "Train/5/../../../00001.bin", "/etc/5/00001.bin", "C:/5/00001.bin", "..\\5\\1.bin"]
)
def test_a_member_that_would_climb_out_is_named(tmp_path: Path, name: str):
    write_zip(tmp_path / "Train.zip", {"Train/5/00002.bin": b"", name: b""})
    with pytest.raises(DataError, match="climbs out of the folder") as error, source.opened(tmp_path / "Train.zip"):
        pass
    assert str(error.value).startswith(f"{tmp_path / 'Train.zip'}: byte ")
    assert repr(name.replace("\\", os.sep)) in str(error.value) or repr(name) in str(error.value)


def test_a_recording_that_is_there_twice_is_named(tmp_path: Path):
    write_zip(tmp_path / "a.zip", {"Train/5/00001.bin": b"", "Other/5/00001.bin": b""})
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
        file.writestr("Train/5/00001.bin", b"one")
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("Train/5/00001.bin", b"two")
    for name in ("a.zip", "b.zip"):
        with pytest.raises(DataError, match=rf"{name}: member \w+/5/00001.bin is there twice"):
            contents(tmp_path / name)


def test_a_bad_checksum_names_archive_and_member(tmp_path: Path):
    path = tmp_path / "Train.zip"
    write_zip(path, {"Train/5/00001.bin": b"aaaaa", "Train/5/00002.bin": b"bbbbb"}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"bbbbb", b"bbbbc"))
    with pytest.raises(DataError, match=r"Train.zip: byte 52: member Train/5/00002.bin: damaged \(Bad CRC-32"):
        contents(path)


def test_damaged_bytes_name_archive_and_member(tmp_path: Path):
    path, content = tmp_path / "Train.zip", os.urandom(50) * 20
    write_zip(path, {"Train/5/00001.bin": content})
    whole = path.read_bytes()
    packed = zlib.compressobj(wbits=-15)
    start = whole.index((packed.compress(content) + packed.flush())[:20])
    path.write_bytes(whole[: start + 3] + b"\xff" * 30 + whole[start + 33 :])
    with pytest.raises(DataError, match=r"Train.zip: byte 0: member Train/5/00001.bin: damaged"):
        contents(path)


def test_a_member_that_announces_too_much_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archive, "LARGEST", 99)
    write_zip(tmp_path / "Train.zip", {"Train/5/00001.bin": bytes(100)})
    with pytest.raises(DataError, match=r"Train/5/00001.bin: 100 bytes when unpacked"):
        contents(tmp_path / "Train.zip")


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"PK\x03\x04" + bytes(60)])
def test_what_is_no_archive_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "Train.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"Train.zip: not a whole zip file"):
        contents(tmp_path / "Train.zip")


def test_an_archive_cut_short_is_named(tmp_path: Path):
    path = tmp_path / "Train.zip"
    write_zip(path, {"Train/5/00001.bin": os.urandom(1000)})
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"Train.zip: not a whole zip file"):
        contents(path)


def test_what_holds_no_recording_is_named(tmp_path: Path):
    write_zip(tmp_path / "Train.zip", {"Train/5/00001.txt": b"", "00001.bin": b""})
    (tmp_path / "Train").mkdir()
    for name in ("Train.zip", "Train"):
        with pytest.raises(DataError, match=f"{name}: holds no recording"):
            contents(tmp_path / name)


def test_a_missing_archive_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"Train.zip: no such file"):
        contents(tmp_path / "Train.zip")
    with pytest.raises(DataError, match=r"Train.zip: cannot be read"):
        source.stamp(tmp_path / "Train.zip")


@pytest.mark.parametrize(
    "name", ["Train/5/00001.bin", "./5//1.bin", "a/./b/", "C:/x", "..\\1", ".", "/", "5/../6/1.bin"]
)
def test_the_parts_of_a_name_are_those_of_a_path(name: str):
    assert archive.parts(name) == [part for part in PurePosixPath(name).parts if part != "/"]


def test_members_are_unpacked_without_zipfile_and_in_several_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    members = {f"Train/5/{n:05}.bin": os.urandom(n) * 300 for n in range(40)}
    write_zip(tmp_path / "Train.zip", members)
    monkeypatch.setattr(zipfile.ZipFile, "read", None)
    with source.opened(tmp_path / "Train.zip") as found, ThreadPoolExecutor(4) as pool:
        assert list(pool.map(found.read, found.recordings)) == list(members.values())


def test_a_member_longer_than_announced_is_named(tmp_path: Path):
    path = tmp_path / "Train.zip"
    write_zip(path, {"Train/5/00001.bin": bytes(range(100))})
    name = len("Train/5/00001.bin").to_bytes(2, "little")
    head, found, tail = path.read_bytes().rpartition((100).to_bytes(4, "little") + name)  # in the directory
    assert found
    path.write_bytes(head + (99).to_bytes(4, "little") + name + tail)
    with pytest.raises(DataError, match=r"Train.zip: byte 0: member Train/5/00001.bin: damaged"):
        contents(path)


def test_labels_are_in_the_order_of_their_numbers():
    assert source.classes_of(["10", "9", "cat", "9", "Ant", "0"]) == ("0", "9", "10", "Ant", "cat")


def test_a_stamp_changes_with_every_file(tmp_path: Path):
    write_tree(tmp_path, {"Train/1/1.bin": b"", "Train/2/2.bin": b"xx"})
    before = source.stamp(tmp_path / "Train")
    assert [file[:2] for file in before] == [("1/1.bin", 0), ("2/2.bin", 2)]
    os.utime(tmp_path / "Train/2/2.bin", ns=(5, 5))
    assert source.stamp(tmp_path / "Train") == [before[0], ("2/2.bin", 2, 5)]


@pytest.mark.skipif(not REAL_DATA, reason="STBP_DATA is not set: no real N-MNIST here")
def test_the_real_recordings_are_mnists_in_order():
    found = source.find(Path(str(REAL_DATA)))
    if found is None:
        pytest.skip("STBP_DATA holds no N-MNIST")
    with source.opened(found[0]) as train, source.opened(found[1]) as test:
        assert [recording.label for recording in train.recordings[:10]] == list("5041921314")
        assert [recording.label for recording in test.recordings[:10]] == list("7210414959")
        assert (train.left_out, test.left_out) == ([], [])
