import hashlib
from importlib.resources import files

import numpy as np
import pytest
import torch

from stbp.data import load

CLASS_COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def stored() -> tuple[np.ndarray, np.ndarray]:
    with (files("stbp.data") / "digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return arrays["images"], arrays["labels"]


def listed() -> list[int]:
    lines = (files("stbp.data") / "digits_test.txt").read_text(encoding="ascii").splitlines()
    return [int(line) for line in lines if not line.startswith("#")]


def test_the_split_is_1437_training_and_360_test_images_of_8x8():
    train, test = load("digits")
    assert train.images.shape == (1437, 1, 8, 8)
    assert test.images.shape == (360, 1, 8, 8)
    assert train.classes == test.classes == tuple("0123456789")


def test_every_class_has_36_test_samples_and_all_the_rest_train():
    train, test = load("digits")
    assert test.labels.bincount().tolist() == [36] * 10
    assert (train.labels.bincount() + test.labels.bincount()).tolist() == CLASS_COUNTS


def test_training_and_test_images_together_are_the_stored_ones_each_once():
    train, test = load("digits")
    values, labels = stored()
    is_test = np.isin(np.arange(1797), listed())
    for part, mask in ((train, ~is_test), (test, is_test)):
        assert torch.equal(part.labels, torch.from_numpy(labels[mask].astype(np.int64)))
        assert (np.abs(part.images[:, 0].numpy() / 255 - values[mask] / 16) <= 0.5 / 255).all()


def test_the_index_list_is_sorted_without_doubles_and_can_be_drawn_again():
    _, labels = stored()
    drawn = []
    for digit in range(10):
        members = [int(i) for i in np.flatnonzero(labels == digit)]
        drawn += sorted(members, key=lambda i: hashlib.sha256(str(i).encode()).hexdigest())[:36]
    assert listed() == sorted(set(drawn))
    assert len(listed()) == 360


def test_black_is_0_and_the_brightest_is_255():
    train, _ = load("digits")
    assert train.images.unique().tolist() == [round(v * 255 / 16) for v in range(17)]


def test_the_stored_file_is_small_and_holds_the_original_values():
    values, labels = stored()
    assert values.dtype == labels.dtype == np.uint8
    assert values.shape == (1797, 8, 8)
    assert (
        hashlib.sha256(values.tobytes() + labels.tobytes()).hexdigest()
        == "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
    )
    assert len((files("stbp.data") / "digits.npz").read_bytes()) < 60_000


def test_the_licence_names_authors_source_and_terms():
    text = (files("stbp.data") / "digits.LICENSE.txt").read_text(encoding="utf-8")
    assert all(part in text for part in ("Alpaydin", "Kaynak", "10.24432/C50P49", "CC BY 4.0"))


def test_the_stored_digits_equal_those_of_scikit_learn():
    theirs = pytest.importorskip("sklearn.datasets").load_digits()
    values, labels = stored()
    assert np.array_equal(values, theirs.images)
    assert np.array_equal(labels, theirs.target)
