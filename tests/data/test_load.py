import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from stbp.data import DataError, load, mnist
from stbp.data.published import Original

from .conftest import PARTS, REAL_DATA, idx_bytes, small_set, write_set


def one_line(error: pytest.ExceptionInfo[DataError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def assert_is_small_set(sets, contents) -> None:
    for part, (images, labels) in zip(sets, (PARTS[:2], PARTS[2:]), strict=True):
        assert part.images[:, 0].numpy().tobytes() == contents[images][16:]
        assert part.labels.numpy().astype(np.uint8).tobytes() == contents[labels][8:]
        assert part.images.shape[1:] == (1, 5, 4)
        assert part.images.dtype == torch.uint8


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("below", ["mnist", "."])
@pytest.mark.parametrize("spelling", ["-idx", ".idx"])
@pytest.mark.parametrize("kind", [str, Path])
def test_the_four_files_are_found_in_either_place_and_spelling(tmp_path, ending, below, spelling, kind):
    contents = small_set()
    write_set(tmp_path / below, {name.replace("-idx", spelling): c for name, c in contents.items()}, ending)
    assert_is_small_set(load("mnist", kind(tmp_path)), contents)


def test_the_environment_names_the_folder_when_the_argument_does_not(tmp_path, monkeypatch):
    ours, theirs = small_set(1), small_set(2)
    write_set(tmp_path / "ours" / "mnist", ours)
    write_set(tmp_path / "theirs" / "mnist", theirs)
    monkeypatch.setenv("STBP_DATA", str(tmp_path / "theirs"))
    assert_is_small_set(load("mnist"), theirs)
    assert_is_small_set(load("mnist", tmp_path / "ours"), ours)


def test_fashion_mnist_has_its_own_class_names(tmp_path):
    write_set(tmp_path / "fashion-mnist", small_set())
    assert load("fashion-mnist", tmp_path)[0].classes[9] == "Ankle boot"


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(DataError, match="no such folder; let --data name the folder") as error:
        load("mnist", tmp_path / "absent")
    assert str(tmp_path / "absent") in one_line(error)


def test_a_folder_without_the_set_is_named_with_the_files_and_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("STBP_DATA", str(tmp_path))
    with pytest.raises(DataError) as error:
        load("mnist")
    text = one_line(error)
    assert all(part in text for part in (*PARTS, str(tmp_path), "STBP_DATA", "omit it to download"))


def test_a_folder_that_lacks_one_file_names_that_file_only(tmp_path):
    write_set(tmp_path / "mnist", small_set())
    (tmp_path / "mnist" / f"{PARTS[3]}.gz").unlink()
    with pytest.raises(DataError) as error:
        load("mnist", tmp_path)
    assert f"{tmp_path / 'mnist'}: lacks {PARTS[3]} " in one_line(error)
    assert PARTS[0] not in str(error.value)


def test_an_empty_folder_name_is_an_error():
    with pytest.raises(DataError, match="--data is empty"):
        load("mnist", "")


def test_an_unknown_name_lists_the_names_and_the_nearest():
    with pytest.raises(
        DataError, match="one of digits, mnist, fashion-mnist, pedestrian, got 'MNITS'; did you mean mnist"
    ):
        load("MNITS")
    with pytest.raises(DataError, match=r"got 'quux'$"):
        load("quux")


def test_a_folder_for_digits_is_an_error_but_the_environment_is_not(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="digits comes with the package; omit --data"):
        load("digits", tmp_path)
    monkeypatch.setenv("STBP_DATA", str(tmp_path))
    assert len(load("digits")[1]) == 360


def test_images_and_labels_of_different_number_name_both_files(tmp_path):
    contents = small_set()
    contents[PARTS[1]] = idx_bytes(np.zeros(29, dtype=np.uint8))
    write_set(tmp_path, contents)
    with pytest.raises(DataError, match=r"30 images and .* 29 labels") as error:
        load("mnist", tmp_path)
    assert PARTS[0] in one_line(error)
    assert PARTS[1] in one_line(error)


def test_training_and_test_images_of_different_size_name_both_files(tmp_path):
    contents = small_set()
    contents[PARTS[2]] = idx_bytes(np.zeros((20, 4, 5), dtype=np.uint8))
    write_set(tmp_path, contents)
    with pytest.raises(DataError, match=r"images of 5x4 and .* of 4x5") as error:
        load("mnist", tmp_path)
    assert PARTS[0] in one_line(error)
    assert PARTS[2] in one_line(error)


def test_the_files_of_another_set_are_refused_although_their_names_fit(tmp_path, monkeypatch):
    contents = small_set()
    original = Original(PARTS[3], len(contents[PARTS[3]]), hashlib.sha256(contents[PARTS[3]]).hexdigest())
    files = mnist.SOURCES["mnist"].files[:3]
    monkeypatch.setitem(mnist.SOURCES, "mnist", mnist.Source(tuple("0123456789"), (), "", *files, original))
    write_set(tmp_path, contents)
    assert len(load("mnist", tmp_path)[0]) == 30
    with pytest.raises(DataError, match="a file of mnist, not of fashion-mnist"):
        load("fashion-mnist", tmp_path)


REAL = {
    "mnist": (
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    ),
    "fashion-mnist": ([6000] * 10, [1000] * 10),
}


@pytest.mark.skipif(not REAL_DATA, reason="STBP_DATA does not name a folder of data sets")
@pytest.mark.parametrize("name", sorted(REAL))
def test_the_real_set_has_the_published_counts_and_contents(name):
    sets = load(name, REAL_DATA)
    source = mnist.SOURCES[name]
    originals = ((source.train_images, source.train_labels), (source.test_images, source.test_labels))
    for part, counts, (images, labels) in zip(sets, REAL[name], originals, strict=True):
        assert part.images.shape == (sum(counts), 1, 28, 28)
        assert part.labels.bincount().tolist() == counts
        assert hashlib.sha256(idx_bytes(part.images[:, 0].numpy())).hexdigest() == images.sha256
        assert hashlib.sha256(idx_bytes(part.labels.numpy().astype(np.uint8))).hexdigest() == labels.sha256


@pytest.mark.skipif(not REAL_DATA, reason="STBP_DATA does not name a folder of data sets")
def test_the_real_mnist_is_refused_as_fashion_mnist():
    with pytest.raises(DataError, match="a file of mnist, not of fashion-mnist"):
        load("fashion-mnist", Path(str(REAL_DATA)) / "mnist")
