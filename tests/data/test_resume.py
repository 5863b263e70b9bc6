"""Downloads that go on where they were cut off, and `fetch_set`."""

import gzip
import hashlib
import subprocess
import sys
import threading
import zipfile
from io import BytesIO
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest

from stbp.cli import data, main
from stbp.data import DataError, downloads, fetch_set, load
from stbp.data.fetch import CHUNK, fetch
from stbp.data.published import Archive

from .conftest import PARTS, files_in
from .test_fetch import HTML, good, not_found, send

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()
ARCHIVE = Archive("Train.zip", hashlib.md5(CONTENT).hexdigest(), 1 << 20)


class Ranged:
    """Answers range requests, keeping the sizes of its answers; closes the connection behind byte `stop`."""

    def __init__(self, content: bytes, stop: int | None = None):
        self.content, self.stop = content, stop
        self.sizes: list[int] = []

    def __call__(self, handler, name) -> None:
        asked = handler.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if asked and start >= len(self.content):
            handler.send_response(416)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if asked else 200)
        if asked:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        handler.send_header("Content-Length", str(len(self.content) - start))
        handler.end_headers()
        part = self.content[start : self.stop]
        self.sizes.append(len(part))
        handler.wfile.write(part)


def test_a_download_goes_on_where_it_was_cut_off(server, tmp_path):
    server.answers["first"] = Ranged(CONTENT, stop=3 * CHUNK)
    with pytest.raises(DataError, match=r"cannot download Train.zip: .* 196,608 bytes are kept to go on from"):
        fetch(ARCHIVE, [server.address("first") + "x"], tmp_path)
    assert files_in(tmp_path) == ["Train.zip.part1"]
    server.answers["first"] = rest = Ranged(CONTENT)
    assert fetch(ARCHIVE, [server.address("first") + "x"], tmp_path).read_bytes() == CONTENT
    assert rest.sizes == [300_000 - 3 * CHUNK]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Train.zip"]


def test_a_server_that_knows_no_ranges_sends_it_all_again(server, tmp_path):
    (tmp_path / "Train.zip.part1").write_bytes(CONTENT[:1000])
    server.answers["first"] = lambda handler, name: send(handler, CONTENT)
    assert fetch(ARCHIVE, [server.address("first") + "x"], tmp_path).read_bytes() == CONTENT


def test_a_part_of_something_else_is_thrown_away_and_all_is_asked_for(server, tmp_path, caplog):
    (tmp_path / "Train.zip.part1").write_bytes(b"x" * 1000)
    server.answers["first"] = whole = Ranged(CONTENT)
    assert fetch(ARCHIVE, [server.address("first") + "x"], tmp_path).read_bytes() == CONTENT
    assert whole.sizes == [299_000, 300_000]
    assert "does not fit (md5" in caplog.text


@pytest.mark.parametrize("extra", [b"", b"more"])
def test_a_part_that_is_whole_or_longer_is_checked(server, tmp_path, extra):
    (tmp_path / "Train.zip.part1").write_bytes(CONTENT + extra)
    server.answers["first"] = Ranged(CONTENT)
    assert fetch(ARCHIVE, [server.address("first") + "x"], tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == (1 if not extra else 2)


def test_each_address_has_a_part_of_its_own(server, tmp_path):
    server.answers.update(first=Ranged(CONTENT, stop=CHUNK), second=Ranged(CONTENT, stop=2 * CHUNK))
    addresses = [server.address(name) + "x" for name in ("first", "second")]
    with pytest.raises(DataError, match=r"65,536 bytes are kept.*131,072 bytes are kept"):
        fetch(ARCHIVE, addresses, tmp_path)
    server.answers.update(first=not_found, second=Ranged(CONTENT))
    assert fetch(ARCHIVE, addresses, tmp_path).read_bytes() == CONTENT
    assert files_in(tmp_path) == ["Train.zip"]


@pytest.mark.parametrize(("content", "reason"), [(HTML, "a web page, not the file"), (b"PK" * 1000, "md5 ")])
def test_what_is_not_the_archive_is_refused_and_deleted(server, tmp_path, content, reason):
    server.answers["first"] = Ranged(content)
    with pytest.raises(DataError, match=reason):
        fetch(ARCHIVE, [server.address("first") + "x"], tmp_path)
    assert files_in(tmp_path) == []


def test_two_that_fetch_the_same_file_download_it_once(server, tmp_path, caplog):
    begun, go_on = threading.Event(), threading.Event()

    def slow(handler, name):
        begun.set()
        go_on.wait(5)
        send(handler, CONTENT)

    server.answers["first"] = slow
    results: list[Path] = []
    threads = [
        threading.Thread(target=lambda: results.append(fetch(ARCHIVE, [server.address("first") + "x"], tmp_path)))
        for _ in range(2)
    ]
    threads[0].start()
    assert begun.wait(5)
    threads[1].start()
    while "waiting for another process" not in caplog.text and threads[1].is_alive():
        threads[1].join(0.01)
    go_on.set()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() == CONTENT for path in results] == [True, True]
    assert len(server.requests) == 1


def zip_bytes(label: str) -> bytes:
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(f"{label}/0/00001.bin", b"12345")
    return content.getvalue()


@pytest.fixture
def nmnist(server, monkeypatch) -> dict[str, bytes]:
    """Two small archives that take the place of N-MNIST's, published in the folder `first` of the server."""
    contents = {f"{label}.zip": zip_bytes(label) for label in ("Train", "Test")}
    files = tuple(
        (Archive(name, hashlib.md5(content).hexdigest(), 10_000), (f"{server.address('first')}{name}",))
        for name, content in contents.items()
    )
    monkeypatch.setattr(downloads, "_N_MNIST", files)
    server.answers["first"] = lambda handler, name: send(handler, contents[name])
    return contents


def test_n_mnist_is_fetched_into_a_folder_of_its_name_once(nmnist, server, tmp_path):
    folder = fetch_set("n-mnist", tmp_path)
    assert folder == tmp_path / "n-mnist"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == nmnist
    assert fetch_set("n-mnist", tmp_path) == folder
    assert len(server.requests) == 2


def test_when_all_addresses_fail_the_page_to_visit_is_named(nmnist, server, tmp_path):
    server.answers["first"] = not_found
    with pytest.raises(
        DataError, match=r"HTTP 404.*get Train.zip, Test.zip from https://www.garrickorchard.com"
    ) as error:
        fetch_set("n-mnist", tmp_path)
    assert f"put them into {tmp_path / 'n-mnist'}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_there_but_another_one_is_named(nmnist, tmp_path):
    (tmp_path / "n-mnist").mkdir()
    (tmp_path / "n-mnist/Train.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"Train.zip: md5 .*; delete it to download it again"):
        fetch_set("n-mnist", tmp_path)


def test_a_set_goes_where_it_will_be_looked_for(published, server, tmp_path, cache, monkeypatch):
    server.answers["first"] = good(published)
    assert fetch_set("mnist") == cache / "mnist"
    monkeypatch.setenv("STBP_DATA", str(tmp_path / "mine"))
    assert fetch_set("mnist") == tmp_path / "mine" / "mnist"
    assert len(load("mnist")[0]) == 30
    assert files_in(tmp_path / "mine") == sorted(f"{name}.gz" for name in PARTS)


def test_files_under_their_other_names_are_not_fetched_again(published, server, tmp_path):
    (tmp_path / "mnist").mkdir()
    for name, content in published.items():
        (tmp_path / "mnist" / name.replace("-idx", ".idx")).write_bytes(content)
    fetch_set("mnist", tmp_path)
    assert server.requests == []
    (tmp_path / "mnist" / PARTS[1].replace("-idx", ".idx")).write_bytes(gzip.compress(b"other"))
    with pytest.raises(DataError, match="delete it to download it again"):
        fetch_set("mnist", tmp_path)


def test_the_command_fetches_and_says_where(nmnist, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["stbp", "data", "fetch", "n-mnist", "--data", str(tmp_path)])
    assert main.main() == 0
    assert f"n-mnist is whole and in {tmp_path / 'n-mnist'}" in capsys.readouterr().out
    (tmp_path / "n-mnist/Test.zip").write_bytes(b"PK")
    assert main.main() == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'n-mnist/Test.zip'}: md5")


def test_the_command_offers_what_can_be_downloaded():
    choices = get_type_hints(data.fetch)["name"]
    assert get_args(choices) == downloads.NAMES


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(DataError, match="what can be downloaded is mnist, fashion-mnist, n-mnist; got 'digits'"):
        fetch_set("digits")


def test_a_killed_download_is_gone_on_with(server, tmp_path):
    """A process that is killed keeps no lock and leaves its part."""
    held = threading.Event()

    def stall(handler, name):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(CONTENT[:200_000])
        handler.wfile.flush()
        held.wait(10)

    server.answers["first"] = stall
    code = f"""
from pathlib import Path
from typing import get_args, get_type_hints
from stbp.data.published import Archive
from stbp.data.fetch import fetch
fetch(Archive("Train.zip", {ARCHIVE.md5!r}, 1 << 20), [{server.address("first") + "x"!r}], Path({str(tmp_path)!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    part = tmp_path / "Train.zip.part1"
    while process.poll() is None and not (part.exists() and part.stat().st_size > 100_000):
        held.wait(0.02)
    process.kill()
    process.wait()
    held.set()
    kept = part.stat().st_size
    server.answers["first"] = rest = Ranged(CONTENT)
    assert fetch(ARCHIVE, [server.address("first") + "x"], tmp_path).read_bytes() == CONTENT
    assert rest.sizes == [len(CONTENT) - kept]
