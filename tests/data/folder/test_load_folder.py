from pathlib import Path

import pytest
import torch
from PIL import Image

import stbp
from stbp.data import DataError


def draw(folder: Path, n: int) -> None:
    for shade, name in ((40, "dark"), (200, "light")):
        (folder / name).mkdir(parents=True)
        for number in range(n):
            Image.new("L", (6, 5), shade + number).save(folder / name / f"{number}.png")


def test_images_of_a_folder_are_pairs_that_fit_takes(tmp_path: Path):
    draw(tmp_path / "drawn", 10)
    (x, y), (x_test, y_test) = stbp.data.load_folder(tmp_path / "drawn")
    assert x.shape == (16, 1, 5, 6)
    assert x_test.shape == (4, 1, 5, 6)
    assert torch.equal(y_test, torch.tensor([0, 0, 1, 1]))
    assert bool((x[y == 1] > 128).all())
    draw(tmp_path / "given/train", 3)
    draw(tmp_path / "given/test", 2)
    (x, _), (x_test, _) = stbp.data.load_folder(tmp_path / "given", image_size=8)
    assert x.shape == (6, 1, 8, 8)
    assert len(x_test) == 4


def test_a_folder_without_images_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="nothing to train on"):
        stbp.data.load_folder(tmp_path)
