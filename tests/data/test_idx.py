import gzip
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbp.data import DataError
from stbp.data.idx import read_images, read_labels

from .conftest import idx_bytes

IMAGES = np.arange(3 * 5 * 4, dtype=np.uint8).reshape(3, 5, 4)
LABELS = np.array([3, 9, 0], dtype=np.uint8)


@pytest.fixture(params=["plain", "gzip"])
def written(request, tmp_path):
    """Writes an idx file and returns its path."""

    def write(content: bytes) -> Path:
        path = tmp_path / "some-idx-ubyte"
        path.write_bytes(gzip.compress(content) if request.param == "gzip" else content)
        return path

    return write


def fault(read, path: Path) -> str:
    """The message of the error that reading raises: one line that begins with the file."""
    with pytest.raises(DataError) as caught:
        read(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


def test_images_and_labels_are_read_in_order_and_can_be_written_to(written):
    images = read_images(written(idx_bytes(IMAGES)))
    assert np.array_equal(images, IMAGES)
    assert images.dtype == np.uint8
    assert images.flags.writeable
    labels = read_labels(written(idx_bytes(LABELS)), 10)
    assert np.array_equal(labels, LABELS)
    assert labels.flags.writeable


def test_a_missing_file_is_named(tmp_path):
    assert "no such file" in fault(read_images, tmp_path / "absent")


def test_a_folder_in_place_of_a_file_is_named(tmp_path):
    assert "cannot be read" in fault(read_images, tmp_path)


def test_labels_where_images_are_expected_are_called_mislabelled(written):
    text = fault(read_images, written(idx_bytes(LABELS)))
    assert "mislabelled, its magic number is 0x00000801 (labels), expected 0x00000803 (images)" in text


def test_images_where_labels_are_expected_are_called_mislabelled(written):
    text = fault(lambda path: read_labels(path, 10), written(idx_bytes(IMAGES)))
    assert "mislabelled, its magic number is 0x00000803 (images), expected 0x00000801 (labels)" in text


def test_a_wrong_magic_number_is_shown_beside_the_expected_one(written):
    text = fault(read_images, written(b"<htm" + idx_bytes(IMAGES)))
    assert "not an idx file, its magic number is 0x3c68746d, expected 0x00000803 (images)" in text


def test_truncated_images_name_the_file_and_both_lengths(written):
    assert "truncated, 59 of the 60 bytes" in fault(read_images, written(idx_bytes(IMAGES)[:-1]))


@pytest.mark.parametrize("length", [0, 3, 4, 15])
def test_a_truncated_header_is_called_truncated(written, length):
    assert "truncated" in fault(read_images, written(idx_bytes(IMAGES)[:length]))


def test_trailing_bytes_name_the_file(written):
    assert "trailing bytes after the 60" in fault(read_images, written(idx_bytes(IMAGES) + b"\0"))


def test_a_file_without_samples_is_called_empty(written):
    assert "empty, its header says 0 x 5 x 4" in fault(read_images, written(idx_bytes(IMAGES[:0])))


def test_a_label_out_of_range_is_named_with_its_sample(written):
    text = fault(lambda path: read_labels(path, 9), written(idx_bytes(LABELS)))
    assert "label 9 of sample 1 is out of 0..8 (1 of 3 labels are)" in text


@pytest.mark.parametrize("damage", ["truncated", "checksum", "garbage behind"])
def test_a_damaged_gzip_file_is_named(tmp_path, damage):
    packed = gzip.compress(idx_bytes(IMAGES))
    content = {
        "truncated": packed[:-9],
        "checksum": packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:],
        "garbage behind": packed + b"garbage",
    }[damage]
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    assert "damaged gzip file" in fault(read_images, path)


def test_a_gzip_file_is_known_by_its_content_not_by_its_name(tmp_path):
    (tmp_path / "images.gz").write_bytes(idx_bytes(IMAGES))
    assert np.array_equal(read_images(tmp_path / "images.gz"), IMAGES)


def test_an_absurd_header_is_refused_before_anything_is_allocated(written):
    path = written(struct.pack(">4I", 0x0803, 2**32 - 1, 2**32 - 1, 2**32 - 1))
    assert "more than the 1,073,741,824 allowed" in fault(read_images, path)


def test_a_header_that_promises_a_gigabyte_costs_no_more_memory_than_the_file(written):
    path = written(struct.pack(">4I", 0x0803, 2**20, 32, 32) + bytes(1000))
    tracemalloc.start()
    try:
        assert "truncated, 1,000 of the 1,073,741,824" in fault(read_images, path)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_gzip_bomb_behind_a_small_header_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(idx_bytes(IMAGES) + bytes(100_000_000), compresslevel=1))
    tracemalloc.start()
    try:
        assert "trailing bytes" in fault(read_images, path)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("idx") / "file"


def reads_or_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for read in (read_images, lambda path: read_labels(path, 10)):
        with suppress(DataError):
            assert read(path).size > 0


@given(data=st.data(), values=st.sampled_from([IMAGES, LABELS]), packed=st.booleans())
def test_any_flipped_byte_gives_a_valid_array_or_a_data_error(scratch, data, values, packed):
    content = bytearray(gzip.compress(idx_bytes(values)) if packed else idx_bytes(values))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    reads_or_is_refused(scratch, bytes(content))


@given(data=st.data(), values=st.sampled_from([IMAGES, LABELS]), packed=st.booleans())
def test_any_truncation_is_a_data_error(scratch, data, values, packed):
    content = gzip.compress(idx_bytes(values)) if packed else idx_bytes(values)
    scratch.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(DataError):
        read_images(scratch) if values is IMAGES else read_labels(scratch, 10)


@given(content=st.binary(max_size=200), start=st.sampled_from([b"", b"\0\0\x08\x03", b"\0\0\x08\x01", b"\x1f\x8b\x08"]))
def test_any_bytes_give_a_valid_array_or_a_data_error(scratch, content, start):
    reads_or_is_refused(scratch, start + content)
