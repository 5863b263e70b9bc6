import gzip
import io
import logging
import socket
import sys
import time
from contextlib import nullcontext
from dataclasses import replace

import pytest

from stbp.data import DataError, load, mnist

from .conftest import PARTS, files_in
from .test_load import assert_is_small_set

HTML = b"<!DOCTYPE html><title>Log in</title>"


def send(handler, body: bytes, length: int | str | None = None, status: int = 200) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


def good(contents):
    return lambda handler, name: send(handler, gzip.compress(contents[name.removesuffix(".gz")]))


def not_found(handler, name):
    send(handler, HTML, status=404)


def assert_refused_by_both(cache, reason: str, kept: int = 0) -> None:
    """Loading fails with one line that gives the reason for each address and the remedy; so many parts stay."""
    with pytest.raises(DataError) as caught:
        load("mnist")
    text = str(caught.value)
    assert "\n" not in text
    assert text.count(reason) == 2
    assert "/first/" in text
    assert "/second/" in text
    assert "into DIR/mnist and pass --data DIR" in text
    assert all(f"{name}.gz" in text for name in PARTS)
    assert files_in(cache) == [f"{PARTS[0]}.gz.part{n + 1}" for n in range(kept)]


def test_a_set_is_downloaded_once_and_then_read_from_the_cache(server, published, cache, capsys):
    server.answers["first"] = good(published)
    assert_is_small_set(load("mnist"), published)
    assert files_in(cache) == sorted(f"{name}.gz" for name in PARTS)
    assert_is_small_set(load("mnist"), published)
    assert len(server.requests) == 4
    assert capsys.readouterr().out == ""


def test_only_the_absent_files_are_downloaded(server, published, cache):
    server.answers["first"] = good(published)
    load("mnist")
    (cache / "mnist" / f"{PARTS[2]}.gz").unlink()
    load("mnist")
    assert server.requests[4:] == [f"/first/{PARTS[2]}.gz"]


def test_the_second_address_is_used_and_the_log_says_why(server, published, cache, caplog):
    server.answers.update(first=not_found, second=good(published))
    with caplog.at_level(logging.WARNING, logger="stbp.data"):
        assert_is_small_set(load("mnist"), published)
    assert len(caplog.messages) == 4
    assert all("/first/" in message and "HTTP 404" in message for message in caplog.messages)


def test_a_mirror_may_pack_the_file_differently_or_not_at_all(server, published):
    server.answers["first"] = lambda handler, name: send(handler, published[name.removesuffix(".gz")])
    assert_is_small_set(load("mnist"), published)


def test_when_every_address_fails_each_is_listed_with_its_reason(server, published, cache):
    server.answers.update(first=not_found, second=not_found)
    assert_refused_by_both(cache, "HTTP 404")


def test_files_that_came_whole_stay_when_a_later_one_fails(server, published, cache):
    def half(handler, name):
        (good(published) if name.startswith("train") else not_found)(handler, name)

    server.answers.update(first=half, second=half)
    with pytest.raises(DataError, match=PARTS[2]):
        load("mnist")
    assert files_in(cache) == sorted(f"{name}.gz" for name in PARTS[:2])


def test_a_connection_cut_off_midway_leaves_no_file_that_looks_whole(server, published, cache):
    def cut(handler, name):
        body = gzip.compress(published[name.removesuffix(".gz")])
        send(handler, body[: len(body) // 2], length=len(body))

    server.answers.update(first=cut, second=cut)
    assert_refused_by_both(cache, "more expected", kept=2)


def test_a_content_length_above_the_truth_is_refused(server, published, cache):
    def boast(handler, name):
        body = gzip.compress(published[name.removesuffix(".gz")])
        send(handler, body, length=len(body) + 1000)

    server.answers.update(first=boast, second=boast)
    assert_refused_by_both(cache, "1000 more expected", kept=2)


def test_a_content_length_below_the_truth_is_refused(server, published, cache):
    def understate(handler, name):
        body = gzip.compress(published[name.removesuffix(".gz")])
        send(handler, body, length=len(body) - 20)

    server.answers.update(first=understate, second=understate)
    assert_refused_by_both(cache, "damaged gzip file")


def test_a_content_length_that_is_no_number_is_refused(server, published, cache):
    def scrawl(handler, name):
        send(handler, gzip.compress(published[name.removesuffix(".gz")]), length="many")

    server.answers.update(first=scrawl, second=scrawl)
    assert_refused_by_both(cache, "answer not understood")


def test_a_web_page_in_place_of_the_file_is_refused(server, published, cache):
    server.answers.update(first=lambda h, n: send(h, HTML), second=lambda h, n: send(h, HTML))
    assert_refused_by_both(cache, "a web page, not the file")


def test_other_content_of_the_right_size_is_refused(server, published, cache):
    def other(handler, name):
        send(handler, gzip.compress(bytes(len(published[name.removesuffix(".gz")]))))

    server.answers.update(first=other, second=other)
    assert_refused_by_both(cache, "sha256")


def test_a_body_without_end_is_stopped(server, published, cache):
    sent = []

    def endless(handler, name):
        handler.send_response(200)
        handler.end_headers()
        while len(sent) < 1000:
            handler.wfile.write(bytes(1 << 16))
            sent.append(1 << 16)

    server.answers.update(first=endless, second=endless)
    assert_refused_by_both(cache, "bytes, stopped")
    assert len(sent) < 1000


def test_a_gzip_bomb_is_stopped(server, published, cache):
    bomb = gzip.compress(bytes(50_000_000))[:-8]  # whoever unpacked it to its end would find it damaged
    server.answers.update(first=lambda h, n: send(h, bomb), second=lambda h, n: send(h, bomb))
    assert_refused_by_both(cache, "more than the expected 616 bytes when unpacked")


def test_a_silent_server_is_given_up_after_the_timeout(server, published, cache, monkeypatch):
    monkeypatch.setattr("stbp.data.fetch.TIMEOUT", (1.0, 0.1))
    server.answers.update(first=lambda h, n: time.sleep(0.3), second=lambda h, n: time.sleep(0.3))
    assert_refused_by_both(cache, "no answer for 0.1 s")


def test_a_port_where_nobody_listens_is_refused(published, cache, monkeypatch):
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
        addresses = (f"http://127.0.0.1:{port}/first/", f"http://127.0.0.1:{port}/second/")
        monkeypatch.setitem(mnist.SOURCES, "mnist", replace(mnist.SOURCES["mnist"], addresses=addresses))
        assert_refused_by_both(cache, "refused")


def test_an_interrupt_leaves_no_file_that_looks_whole(server, published, cache, monkeypatch):
    def interrupt(done):
        if done:
            raise KeyboardInterrupt

    server.answers["first"] = good(published)
    monkeypatch.setattr("stbp.data.fetch.bar", lambda text, total: nullcontext(interrupt))
    with pytest.raises(KeyboardInterrupt):
        load("mnist")
    assert files_in(cache) == [f"{PARTS[0]}.gz.part1"]


def test_a_full_disk_is_an_error_of_the_folder_not_of_the_address(server, published, cache, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    server.answers.update(first=good(published), second=good(published))
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device"):
        load("mnist")
    assert len(server.requests) == 1
    assert files_in(cache) == [f"{PARTS[0]}.gz.part1"]


def test_a_cache_folder_that_cannot_be_made_is_named(published, cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(DataError, match="cannot be written") as error:
        load("mnist")
    assert str(cache) in str(error.value)
    assert "\n" not in str(error.value)


def test_progress_goes_to_stderr_of_a_terminal_only(server, published, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    server.answers["first"] = good(published)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    load("mnist")
    assert f"{PARTS[0]}.gz" in terminal.getvalue()
    assert "100%" in terminal.getvalue()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("part", [0, 1, 2, 3])
def test_a_damaged_file_in_the_cache_is_named_to_be_deleted(server, published, cache, part):
    server.answers["first"] = good(published)
    load("mnist")
    path = cache / "mnist" / f"{PARTS[part]}.gz"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError) as error:
        load("mnist")
    assert f"; delete {path} to download again" in str(error.value)
    assert "\n" not in str(error.value)
    path.unlink()
    assert_is_small_set(load("mnist"), published)
