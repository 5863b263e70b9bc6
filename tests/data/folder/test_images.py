import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import stbp
from stbp.config import Experiment
from stbp.data import DataError, ImageSet
from stbp.data import load as load_set
from stbp.data.folder import load as own
from stbp.data.folder.images import read
from stbp.data.image_file import read_image
from stbp.train.progress import Silent

from ..conftest import REAL_DATA


def write_image(path: Path, value: int, size: tuple[int, int] = (6, 9)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)


def write_tree(folder: Path, train: str = "train", test: str = "test") -> None:
    """Two classes; the grey value of each image tells split, class and place."""
    for split, base, n in ((train, 0, 3), (test, 100, 2)):
        for k, name in enumerate(("b", "a")):
            for i in range(n):
                write_image(folder / split / name / f"{i}.png", base + 20 * k + i)


def load(folder: Path, size: int | None = None) -> list[ImageSet]:
    sets = own.read(own.look(folder), image_size=size).sets
    assert all(isinstance(one, ImageSet) for one in sets)
    return [one for one in sets if isinstance(one, ImageSet)]


def values(images: stbp.data.ImageSet) -> list[int]:
    assert (images.images == images.images[:, :, :1, :1]).all()
    return images.images[:, 0, 0, 0].tolist()


def one_line(error: pytest.ExceptionInfo[DataError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_tree_is_read_by_class_and_file_name(tmp_path):
    write_tree(tmp_path)
    train, test = load(tmp_path, 4)
    assert train.classes == test.classes == ("a", "b")
    assert train.images.shape == (6, 1, 4, 4)
    assert values(train) == [20, 21, 22, 0, 1, 2]
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert values(test) == [120, 121, 100, 101]
    assert test.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("below", ["pedestrian", "."])
def test_pedestrian_is_found_in_the_folder_of_data_sets_or_is_the_folder(tmp_path, below, monkeypatch):
    write_tree(tmp_path / below)
    assert len(load_set("pedestrian", tmp_path, 4)[0]) == 6
    monkeypatch.setenv("STBP_DATA", str(tmp_path))
    assert len(load_set("pedestrian", size=4)[1]) == 4


@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("training", "testing"), ("train", "val")])
def test_splits_go_by_several_names(tmp_path, train, test):
    write_tree(tmp_path, train, test)
    assert values(load(tmp_path, 4)[1]) == [120, 121, 100, 101]


def test_a_folder_called_test_comes_before_one_called_val(tmp_path):
    write_tree(tmp_path)
    write_image(tmp_path / "val/a/0.png", 250)
    write_image(tmp_path / "val/b/0.png", 251)
    assert values(load(tmp_path, 4)[1]) == [120, 121, 100, 101]


def test_what_is_skipped_is_counted_with_its_reason(tmp_path, caplog):
    write_tree(tmp_path)
    (tmp_path / "train/a/notes.txt").write_text("hello")
    (tmp_path / "train/a/empty.png").touch()
    (tmp_path / "train/a/more").mkdir()
    (tmp_path / "train/stray.png").write_bytes((tmp_path / "train/a/0.png").read_bytes())
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60), np.uint8)).save(tmp_path / "train/b/broken.png")
    content = (tmp_path / "train/b/broken.png").read_bytes()
    (tmp_path / "train/b/broken.png").write_bytes(content[: len(content) // 2])
    with caplog.at_level(logging.WARNING, logger="stbp.data"):
        train, _ = load(tmp_path, 4)
    assert values(train) == [20, 21, 22, 0, 1, 2]
    assert len(caplog.messages) == 1
    text = caplog.messages[0]
    assert f"{tmp_path / 'train'}: skipped 5 of 11 files: " in text
    for reason in (
        "1 neither image nor recording (a/notes.txt)",
        "1 empty (a/empty.png)",
        "1 not a file (a/more)",
        "1 damaged or not readable (b/broken.png)",
        "1 not in the folder of a class (stray.png)",
    ):
        assert reason in text


def test_without_data_pedestrian_says_what_shape_it_needs_and_why_it_is_not_shipped():
    with pytest.raises(DataError, match="cannot be downloaded") as error:
        load_set("pedestrian", size=28)
    text = one_line(error)
    assert all(part in text for part in ("--data DIR", "DIR/pedestrian", "train/CLASS/", "may not be passed on"))


def test_a_folder_without_a_tree_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no pedestrian in it; pass --data DIR, where .* train/CLASS") as error:
        load_set("pedestrian", tmp_path, 28)
    assert str(tmp_path) in one_line(error)
    with pytest.raises(DataError, match="nothing to train on in it; name a folder of train/CLASS"):
        load(tmp_path, 28)


def test_a_missing_split_is_named_with_what_was_looked_for(tmp_path):
    write_tree(tmp_path, test="exam")
    with pytest.raises(DataError, match="no folder of test samples") as error:
        load(tmp_path, 4)
    assert "test/, testing/, val/" in one_line(error)


def test_a_class_in_one_split_only_is_named_with_both_folders(tmp_path):
    write_tree(tmp_path)
    write_image(tmp_path / "test/c/0.png", 1)
    with pytest.raises(DataError, match=r"train: has no class 'c', but .*test has"):
        load(tmp_path, 4)


def test_a_class_without_an_image_and_a_split_without_classes_are_errors(tmp_path):
    write_tree(tmp_path)
    for path in (tmp_path / "test/b").iterdir():
        path.write_text("no image")
    with pytest.raises(
        DataError, match=r"test/b: holds no image and no recording that can be read \(neither image nor recording\)"
    ):
        load(tmp_path, 4)
    for split in ("train", "test"):
        (tmp_path / "bare" / split).mkdir(parents=True)
    with pytest.raises(DataError, match="holds no folders of classes"):
        load(tmp_path / "bare", 4)


def test_without_a_size_the_images_must_have_one(tmp_path):
    write_tree(tmp_path)
    assert load(tmp_path)[0].shape == (1, 9, 6)
    write_image(tmp_path / "test/a/other.png", 1, (9, 9))
    with pytest.raises(
        DataError, match=r"images of 2 sizes, such as 6x9 \(10\) and 9x9 \(1\); say with --image-size"
    ) as error:
        load(tmp_path)
    one_line(error)
    assert load(tmp_path, 5)[1].shape == (1, 5, 5)


def test_a_size_is_needed_by_pedestrian_and_refused_by_the_others(tmp_path):
    with pytest.raises(DataError, match="got None for pedestrian"):
        load_set("pedestrian", tmp_path)
    with pytest.raises(DataError, match="got 28 for digits"):
        load_set("digits", size=28)
    with pytest.raises(DataError, match=r"must be one of .*pedestrian, got 'folder'"):
        load_set("folder", tmp_path)
    fields: dict[str, Any] = {"name": "x", "network": "64-2"}
    with pytest.raises(ValueError, match="image_size has no effect with dataset mnist, only with pedestrian or folder"):
        Experiment.of(dataset="mnist", image_size=28, **fields)
    with pytest.raises(ValueError, match="dataset pedestrian needs image_size"):
        Experiment.of(dataset="pedestrian", **fields)


def test_without_splits_all_classes_are_one_set(tmp_path):
    write_tree(tmp_path)
    (only,) = load(tmp_path / "train")
    assert values(only) == [20, 21, 22, 0, 1, 2]
    (alone,) = load(tmp_path / "train" / "..", 4)[:1]
    assert values(alone) == [20, 21, 22, 0, 1, 2]
    for path in (tmp_path / "test").rglob("*.png"):
        path.unlink()
    for path in (tmp_path / "test").iterdir():
        path.rmdir()
    (tmp_path / "test").rmdir()
    assert len(load(tmp_path)) == 1  # train/ alone


def test_what_lies_beside_the_test_set_is_told(tmp_path, caplog):
    write_tree(tmp_path)
    write_image(tmp_path / "val/a/0.png", 250)
    load(tmp_path)
    assert caplog.messages == ["val is not used: another one is the test set"]


def test_images_in_two_splits_are_what_the_camera_shows(tmp_path):
    write_tree(tmp_path)
    assert values(read(tmp_path, 4)[1]) == [120, 121, 100, 101]
    with pytest.raises(DataError, match="no images in it in two splits"):
        read(tmp_path / "train", 4)


def test_a_class_alone_and_images_too_large_are_refused(tmp_path):
    write_image(tmp_path / "one/a/0.png", 3)
    with pytest.raises(DataError, match="there is one class, 'a'"):
        load(tmp_path / "one")
    for name in "ab":
        write_image(tmp_path / "large" / name / "0.png", 3, (1000, 600))
    with pytest.raises(DataError, match=r"1 x 600 x 1000 .* make it smaller with --image-size"):
        load(tmp_path / "large")


def test_an_image_is_scaled_by_block_means_or_bilinearly(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    small = read_image(tmp_path / "x.png", (1, 4, 4))[0].numpy().astype(int)
    assert np.abs(small - pixels.reshape(4, 2, 4, 3).mean((1, 3))).max() <= 1  # Pillow rounds after each axis
    odd = read_image(tmp_path / "x.png", (1, 9, 9))[0].numpy()
    assert np.array_equal(odd, np.asarray(Image.open(tmp_path / "x.png").resize((9, 9), Image.Resampling.BILINEAR)))


def test_a_network_learns_a_folder_and_predicts_its_files_as_in_training(tmp_path):
    write_tree(tmp_path / "data")
    run = stbp.fit(
        Experiment.of(name="x", dataset="folder", image_size=4, network="16-8-2", T=5, epochs=2, batch_size=3),
        data=tmp_path / "data",
        out=tmp_path / "run",
        report=Silent(),
    )
    assert run.classes == ("a", "b")
    again = stbp.evaluate(tmp_path / "run", data=tmp_path / "data")
    assert again.accuracy == run.test_accuracy
    assert run.experiment.network == "16-8-2"
    image = read_image(tmp_path / "data/train/a/1.png", (1, 4, 4))
    assert torch.equal(image, load(tmp_path / "data", 4)[0].images[1])


@pytest.mark.skipif(
    not REAL_DATA or not (Path(REAL_DATA) / "pedestrian").is_dir(), reason="needs STBP_DATA with pedestrian/"
)
def test_the_real_pedestrians_are_read_whole(caplog):
    train, test = load_set("pedestrian", REAL_DATA, 28)
    assert train.labels.bincount().tolist() == [752, 753]
    assert test.labels.bincount().tolist() == [189, 189]
    assert train.classes == ("background", "pedestrian")
    assert caplog.messages == []
