"""`stbp train folder`, from the command line to a label for a file."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import stbp
from stbp.config import Experiment
from stbp.data.events.windows import window_of_file
from stbp.data.folds import Part
from stbp.experiments import own_data
from stbp.experiments.datasets import ready
from stbp.ops.spikes import Spikes
from stbp.train.progress import Silent
from tests.data.conftest import cache as cache
from tests.data.conftest import idx_bytes
from tests.data.events import files

EPOCHS = ("--epochs", 2, "--T", 6, "--batch-size", 5)


def images(folder: Path, splits: dict[str, int], size: tuple[int, int] = (7, 5)) -> Path:
    """Two classes: bright above, bright below."""
    random = np.random.default_rng(0)
    for split, n in splits.items():
        for k, name in enumerate(("up", "down")):
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                pixels = random.integers(0, 60, size)
                pixels[k * 3 : k * 3 + 3] += 150
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{i}.png")
    return folder


def events(k: int, i: int, late: int = 7_000_000) -> list[files.Event]:
    random = np.random.default_rng((k, i))
    t = np.sort(random.integers(0, 30_000 + i, 200)) + late
    x, y = random.integers(k * 64, k * 64 + 64, 200), random.integers(0, 128, 200)
    return [(int(a), int(b), int(c), int(d)) for a, b, c, d in zip(t, x, y, random.integers(0, 2, 200), strict=True)]


def recordings(folder: Path, n: int = 10) -> Path:
    """Two classes, left and right of the sensor; every other file in another format."""
    for k, name in enumerate(("left", "right")):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            made = events(k, i)
            content = files.aedat2(made) if i % 2 else files.AEDAT3_HEADER + files.aedat3_packet(made)
            (folder / name / f"{i}.aedat").write_bytes(content)
    return folder


def trained(run_stbp, data: Path, out: Path, *flags: object) -> dict:
    code, _, err = run_stbp("train", "folder", "--data", data, "--out", out, *EPOCHS, *flags)
    assert code == 0, err
    code, text, err2 = run_stbp("eval", out, "--data", data, "--json")
    assert code == 0, err2
    summary = json.loads((out / "summary.json").read_text())
    assert json.loads(text)["test_accuracy"] == summary["test_accuracy"]
    return json.loads((out / "config.json").read_text())


def test_images_are_trained_on_tested_and_labelled(run_stbp, tmp_path):
    folder = images(tmp_path / "my images", {"train": 8, "test": 4})
    config = trained(run_stbp, folder, tmp_path / "run", "--network", 12)
    assert (config["network"], config["image_size"], config["step_ms"]) == ("35-12-2", None, None)
    code, text, _ = run_stbp("predict", tmp_path / "run", folder / "test/up/0.png", "--json")
    assert code == 0
    assert json.loads(text)[0]["label"] in ("up", "down")


def test_recordings_are_trained_on_with_a_split_that_is_drawn_and_told(run_stbp, tmp_path, caplog):
    folder = recordings(tmp_path / "data")
    config = trained(run_stbp, folder, tmp_path / "run", "--network", "4C5-P4-10", "--downscale", 4)
    assert (config["network"], config["sensor"], config["downscale"]) == ("32x32x2-4C5-P4-10-2", "128x128", 4)
    assert "are drawn for it by seed 0: 16 training and 4 test samples (left 8+2, right 8+2)" in caplog.text
    assert "6 steps hold the longest training recording" in caplog.text
    longest = max(e[-1][0] - e[0][0] for e in (events(k, i) for k in range(2) for i in range(10)))
    assert 6 * config["step_ms"] * 1000 > longest >= 6 * (config["step_ms"] * 1000 - 1)
    code, text, _ = run_stbp("predict", tmp_path / "run", folder / "left/0.aedat", folder / "right/1.aedat", "--json")
    assert code == 0
    assert [one["label"] in ("left", "right") for one in json.loads(text)] == [True, True]
    assert run_stbp("plot", "events", folder / "left/0.aedat", "--out", tmp_path / "events.png")[0] == 0


def test_a_file_is_labelled_by_the_frames_that_its_network_was_trained_on(tmp_path, cache):
    folder = recordings(tmp_path / "data")
    e = Experiment.of(name="folder", dataset="folder", network="8", T=6, downscale=4)
    e, train, _ = ready(e, folder)
    assert isinstance(train.samples, Part)
    place = int(train.samples.samples[3])  # the fourth training sample's place among all
    name = [f"{c}/{i}.aedat" for c in ("left", "right") for i in range(10)][place]
    one = window_of_file(folder / name, e, (32, 32))
    other = train.window(torch.tensor([3]), 0, torch.device("cpu"))
    assert isinstance(one, Spikes)
    assert isinstance(other, Spikes)
    assert torch.equal(one.bits, other.bits)
    assert one.density() > 0


def test_idx_files_and_arrays_are_trained_on(run_stbp, tmp_path, caplog):
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (30, 6, 5), np.uint8), np.arange(30) % 3 + 1
    (tmp_path / "idx").mkdir()
    for name, values in (("images-idx3", x), ("labels-idx1", y)):
        for split in ("train", "test"):
            path = tmp_path / f"idx/emnist-letters-{split}-{name}-ubyte.gz"
            path.write_bytes(gzip.compress(idx_bytes(values.astype(np.uint8))))
    assert trained(run_stbp, tmp_path / "idx", tmp_path / "a")["network"] == "30-400-3"
    np.savez(tmp_path / "own.npz", x=x, y=y)
    config = trained(run_stbp, tmp_path / "own.npz", tmp_path / "b", "--test-share", 0.5, "--seed", 3)
    assert config["test_share"] == 0.5
    assert "50 % of each class are drawn for it by seed 3: 15 training and 15 test samples" in caplog.text


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path, cache):
    folder = recordings(tmp_path / "data", 4)
    options = {"data": folder, "report": Silent(), "network": "8", "T": 3, "schedule": "constant", "batch_size": 3}
    whole = stbp.fit("folder", epochs=3, out=tmp_path / "whole", **options)
    stbp.fit("folder", epochs=2, out=tmp_path / "parts", **options)
    parts = stbp.fit("folder", epochs=3, out=tmp_path / "parts", resume=True, **options)
    for a, b in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["images", "recordings"])
def test_folds_are_of_all_samples_whatever_the_seed(tmp_path, kind, cache):
    folder = images(tmp_path, {"train": 4, "test": 2}) if kind == "images" else recordings(tmp_path / "data", 6)
    sets = [
        ready(Experiment.of(name="folder", dataset="folder", network="8", folds=3, fold=1, seed=seed), folder)
        for seed in (0, 1)
    ]
    assert [(len(one.train), len(one.test)) for one in sets] == [(8, 4)] * 2
    assert sets[0].test.labels.tolist() == sets[1].test.labels.tolist()
    assert sets[0].test.labels.bincount().tolist() == [2, 2]


def test_eval_refuses_data_of_another_kind(run_stbp, tmp_path):
    trained(run_stbp, images(tmp_path / "a", {"train": 3, "test": 2}), tmp_path / "run")
    code, _, err = run_stbp("eval", tmp_path / "run", "--data", images(tmp_path / "b", {"train": 3, "test": 2}, (9, 9)))
    assert code == 2
    assert "was trained on data of another kind: shape (1, 7, 5), here (1, 9, 9)" in err


@pytest.mark.parametrize(
    ("make", "flags", "message"),
    [
        (None, (), "folder needs --data PATH, a folder of train/CLASS"),
        (lambda f: f, (), "no such folder"),
        (lambda f: f.mkdir(), (), "nothing to train on in it"),
        (lambda f: (f / "a.zip").write_bytes(b"PK") if f.mkdir() is None else 0, (), "; unpack the .zip files; name"),
        (lambda f: f.write_text("x"), (), "a file; name a folder of train/CLASS"),
        (lambda f: images(f, {"train": 2, "exam": 2}), (), "no folder of test samples"),
        (lambda f: images(f, {"train": 2}), ("--step-ms", 3), "step_ms has no effect on the images in"),
        (lambda f: images(f, {"train": 2}), ("--sensor", "3x4"), "sensor has no effect on the images in"),
        (lambda f: images(f, {"train": 2}), ("--counts",), "counts has no effect on the images in"),
        (
            lambda f: images(f, {"train": 2}),
            ("--sensor", "big"),
            "sensor must be columns x rows, as 346x260; got 'big'",
        ),
        (lambda f: images(f, {"train": 2, "test": 2}), ("--test-share", 0.5), "test_share has no effect"),
        (lambda f: images(f, {".": 1}), (), "a class with one sample cannot be divided"),
        (lambda f: recordings(f, 2), ("--image-size", 8), "image_size has no effect on the recordings in"),
        (lambda f: recordings(f, 2), ("--elastic", 1), "elastic has no effect on the recordings in"),
        (lambda f: recordings(f, 2), ("--encoding", "static"), "encoding has no effect on the recordings in"),
        (lambda f: recordings(f, 2), ("--stabilize",), "stabilize has no effect with dataset folder"),
        (lambda f: recordings(f, 2), ("--sensor", "64x64"), "give its size, columns x rows, with --sensor"),
        (lambda f: recordings(f, 2), ("--downscale", 1), "downscale must be in 2..64"),
    ],
)
def test_mistakes_are_told_in_one_line(run_stbp, tmp_path, make, flags, message):
    folder = tmp_path / "data"
    if make is not None:
        make(folder)
    data = ("--data", folder) if make is not None else ()
    code, _, err = run_stbp("train", "folder", *data, "--out", tmp_path / "run", *flags)
    assert code == 2
    assert message in " ".join(err.replace("│", " ").split())  # tyro puts what it finds itself into a box
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_the_first_step_that_holds_a_recording_of_whole_steps_is_longer():
    assert own_data._step_ms(600, 600, 6) == 0.101
    assert own_data._step_ms(0, 0, 6) == 0.001
