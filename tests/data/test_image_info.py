import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stbp.cli import main
from stbp.data import DataError
from stbp.data.image_info import describe

from .conftest import PARTS, REAL_DATA, idx_bytes, write_set


def idx_set(folder: Path, train_labels: list[int], ending: str = ".gz") -> None:
    arrays = [np.zeros((3, 5, 4)), np.array(train_labels), np.zeros((2, 5, 4)), np.array([7, 7])]
    write_set(folder, {name: idx_bytes(a.astype(np.uint8)) for name, a in zip(PARTS, arrays, strict=True)}, ending)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_files_are_counted_by_class(tmp_path: Path, ending: str):
    idx_set(tmp_path, [9, 2, 9], ending)
    assert describe(tmp_path) == {
        "path": str(tmp_path),
        "format": "idx",
        "splits": {"train": {"images": 3, "classes": {"2": 1, "9": 2}}, "t10k": {"images": 2, "classes": {"7": 2}}},
        "sizes": {"4 x 5": 5},
    }
    one = describe(tmp_path / (PARTS[0] + ending))
    assert one is not None
    assert one["sizes"] == {"4 x 5": 3}
    labels = describe(tmp_path / (PARTS[1] + ending))
    assert labels is not None
    assert next(iter(labels["splits"].values())) == {"images": 3, "classes": {"2": 1, "9": 2}}


def test_images_and_labels_that_do_not_fit_are_named(tmp_path: Path):
    idx_set(tmp_path, [1, 2, 3, 4])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz: 3 images, but .* holds 4 labels"):
        describe(tmp_path)


def test_a_folder_of_images_is_counted_and_the_command_prints_it(tmp_path: Path, monkeypatch, capsys):
    for name, size in (("train/cat/a.png", (6, 8)), ("train/dog/b.jpg", (6, 8)), ("test/cat/c.png", (9, 9))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size).save(tmp_path / name)
    (tmp_path / "train/cat/broken.png").write_bytes(b"no image")
    (tmp_path / "train/cat/note.txt").touch()
    found = describe(tmp_path)
    assert found is not None
    assert found["splits"]["train"] == {"images": 2, "classes": {"cat": 1, "dog": 1}}
    assert found["splits"]["test"] == {"images": 1, "classes": {"cat": 1}}
    assert (found["sizes"], found["other_files"]) == ({"6 x 8": 2, "9 x 9": 1}, 2)
    monkeypatch.setattr(sys, "argv", ["stbp", "data", "info", str(tmp_path)])
    assert main.main() == 0
    out = capsys.readouterr().out
    for part in ("train  2 images, 2 classes", "cat:1  dog:1", "6 x 8 pixels, 2 images", "other files"):
        assert part in out


def test_what_holds_no_images_is_left_to_others(tmp_path: Path):
    (tmp_path / "train/0").mkdir(parents=True)
    (tmp_path / "train/0/1.bin").write_bytes(b"abcde")
    for path in (tmp_path, tmp_path / "train/0/1.bin", tmp_path / "absent"):
        assert describe(path) is None


@pytest.mark.skipif(not REAL_DATA, reason="STBP_DATA does not name a folder of data sets")
def test_the_real_sets_are_counted():
    found = describe(Path(REAL_DATA or "") / "mnist")
    assert found is not None
    assert {name: split["images"] for name, split in found["splits"].items()} == {"train": 60_000, "t10k": 10_000}
    assert found["splits"]["t10k"]["classes"]["1"] == 1135
    assert found["sizes"] == {"28 x 28": 70_000}
