import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stbp.data import DataError, ImageSet
from stbp.data.folder import load as own

from ..conftest import idx_bytes

RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, 256, (12, 5, 4), np.uint8)
Y = np.arange(12) % 3


def load(path: Path) -> list[ImageSet]:
    return [one for one in own.read(own.look(path)).sets if isinstance(one, ImageSet)]


def fault(path: Path) -> str:
    with pytest.raises(DataError) as error:
        load(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


def write_idx(folder: Path, prefix: str, images: np.ndarray, labels: np.ndarray, middle: str = "-") -> None:
    for name, values in ((f"images{middle}idx3", images), (f"labels{middle}idx1", labels)):
        (folder / f"{prefix}{name}-ubyte.gz").write_bytes(gzip.compress(idx_bytes(values.astype(np.uint8))))


@pytest.mark.parametrize("prefixes", [("train-", "t10k-"), ("kmnist-train-", "kmnist-test-")])
@pytest.mark.parametrize("middle", ["-", "."])
def test_pairs_of_idx_files_have_any_number_of_classes_and_labels_from_any_number(tmp_path, prefixes, middle):
    write_idx(tmp_path, prefixes[0], X[:9], Y[:9] + 7, middle)
    write_idx(tmp_path, prefixes[1], X[9:], Y[9:] + 7, middle)
    train, test = load(tmp_path)
    assert train.classes == test.classes == ("7", "8", "9")
    assert train.labels.tolist() == Y[:9].tolist()
    assert np.array_equal(test.images[:, 0].numpy(), X[9:])


def test_emnist_is_turned_upright_and_that_is_told(tmp_path, caplog):
    write_idx(tmp_path, "emnist-letters-train-", X, Y + 1)
    write_idx(tmp_path, "emnist-letters-test-", X, Y + 1)
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65 97\n")
    train, _ = load(tmp_path)
    assert np.array_equal(train.images[:, 0].numpy(), X.transpose(0, 2, 1))
    assert train.classes == ("1", "2", "3")
    assert "emnist-letters-train-images-idx3-ubyte.gz: EMNIST stores its images transposed" in caplog.messages[0]


def test_a_pair_alone_is_one_set_and_a_packed_copy_is_no_second_one(tmp_path):
    write_idx(tmp_path, "", X, Y)
    (tmp_path / "images-idx3-ubyte").write_bytes(idx_bytes(X))
    (only,) = load(tmp_path)
    assert len(only) == 12


@pytest.mark.parametrize("names", ["x_train y_train x_test y_test", "train_images train_labels test_images test_labels",
                                   "X-train Y-train imgs.val targets.val"])  # fmt: skip
@pytest.mark.parametrize("packed", [True, False])
def test_arrays_are_told_by_their_names(tmp_path, names, packed):
    arrays: dict[str, Any] = dict(zip(names.split(), (X[:9], Y[:9], X[9:], Y[9:, None]), strict=True))
    if packed:
        np.savez(tmp_path / "set.npz", **arrays)
    else:
        for name, values in arrays.items():
            np.save(tmp_path / f"{name}.npy", values)
    train, test = load(tmp_path)
    assert (len(train), len(test)) == (9, 3)
    assert np.array_equal(train.images[:, 0].numpy(), X[:9])
    assert test.labels.tolist() == Y[9:].tolist()
    if packed:
        assert len(load(tmp_path / "set.npz")) == 2


def test_a_file_for_each_array_is_told_by_the_files_name(tmp_path):
    for name, values in (("train-imgs", X), ("train-labels", Y), ("test-imgs", X), ("test-labels", Y)):
        np.savez_compressed(tmp_path / f"kmnist-{name}.npz", values)
    assert [len(one) for one in load(tmp_path)] == [12, 12]


def test_of_two_test_sets_the_first_counts_and_that_is_told(tmp_path, caplog):
    parts = {f"{split}_{what}": v for split in ("train", "val", "test") for what, v in (("images", X), ("labels", Y))}
    arrays: dict[str, Any] = parts | {"test_images": X[:6], "test_labels": Y[:6]}
    np.savez(tmp_path / "mednist.npz", **arrays)
    assert [len(one) for one in load(tmp_path)] == [12, 6]
    assert caplog.messages == ["val is not used: another one is the test set"]


def test_labels_may_be_texts_which_are_the_names_of_the_classes(tmp_path):
    np.savez(tmp_path / "a.npz", images=X, labels=np.array(["cat", "dog", "ant"])[Y])
    (only,) = load(tmp_path)
    assert only.classes == ("ant", "cat", "dog")
    assert only.labels.tolist() == [[1, 2, 0][y] for y in Y]


@pytest.mark.parametrize("axis", [1, 3])
def test_colours_become_grey_as_pillow_does_it(tmp_path, axis, caplog):
    colours = RANDOM.integers(0, 256, (12, 5, 4, 3), np.uint8)
    np.savez(tmp_path / "a.npz", x=np.moveaxis(colours, 3, axis), y=Y)
    (only,) = load(tmp_path)
    expected = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in colours])
    assert np.array_equal(only.images[:, 0].numpy(), expected)
    assert "colours become grey" in caplog.messages[0]


def test_one_channel_is_taken_as_it_is(tmp_path):
    np.savez(tmp_path / "a.npz", x=X[:, None], y=Y)
    assert np.array_equal(load(tmp_path)[0].images[:, 0].numpy(), X)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, r"a.npz: x has no labels beside it"),
        ({"y": Y}, r"a.npz: y has no inputs beside it"),
        ({"first": X, "second": Y}, "no name tells images or labels among a.npz: first"),
        ({"x": X, "y": Y[:5]}, "x holds 12 images, but a.npz: y holds 5 labels"),
        ({"x": X, "images": X, "y": Y}, "a.npz: x and a.npz: images are both inputs"),
        ({"x": X, "y": Y, "x_test": X, "y_test": Y}, "x names no split, other arrays do"),
        ({"x_test": X, "y_test": Y}, "no training samples, only test"),
        ({"x": X / 255, "y": Y}, "float64 .* only uint8 images, 0 to 255"),
        ({"x": X.reshape(12, 20), "y": Y}, r"\(12, 20\); must be \[N, H, W\]"),
        ({"x": np.zeros((12, 3, 5, 3), np.uint8), "y": Y}, r"can be \[N, H, W, C\] or \[N, C, H, W\]"),
        ({"x": X, "y": np.eye(12)}, r"labels must be integers or texts, \[N\] or \[N, 1\]; from one-hot"),
        ({"x": X, "y": np.array([None] * 12, object)}, r"Python objects \(pickle\), which can run any code"),
        ({"x_train": X[:2], "y_train": Y[:2], "x_test": X, "y_test": Y}, "y_test has label 2, which no training"),
        ({"x_train": X, "y_train": Y, "x_test": X[:, 1:], "y_test": Y}, "all must have one size"),
        ({"x": X, "y": Y * 0}, "there is one class, '0'"),
        ({"x": X[:0], "y": Y[:0]}, "holds no image"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def test_several_sets_in_one_folder_are_refused_by_their_names(tmp_path):
    for name in ("balanced", "letters"):
        write_idx(tmp_path, f"emnist-{name}-train-", X, Y)
    assert "holds several sets, emnist-balanced, emnist-letters; keep each in a folder" in fault(tmp_path)


@pytest.mark.parametrize(("name", "content"), [("a.npz", b"PK\x03\x04rest"), ("x.npy", b"\x93NUMPY\x01\x00v\x00{"),
                                               ("x.npy", b"\x80\x04K\x01.")])  # fmt: skip
def test_a_damaged_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    np.save(tmp_path / "y.npy", Y)
    assert str(tmp_path / name) in fault(tmp_path)


def test_a_damaged_idx_file_is_refused(tmp_path):
    write_idx(tmp_path, "", X, Y)
    path = tmp_path / "images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(X)[:-5]))
    assert f"{path}: truncated" in fault(tmp_path)


def test_arrays_beside_folders_of_images_are_ambiguous(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    (tmp_path / "train").mkdir()
    assert "holds several kinds of data sets" in fault(tmp_path)


def test_options_of_others_have_no_effect(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    wrong: list[dict[str, Any]] = [{"image_size": 4}, {"sensor": (3, 4)}, {"downscale": 2}]
    for options in wrong:
        with pytest.raises(DataError, match="has no effect on the npz arrays in"):
            own.read(own.look(tmp_path), **options)
