import dataclasses
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from stbp.camera import dataset
from stbp.camera.camera import Camera, presets
from stbp.camera.mnist_simulated import FITTED, SHOWN, load_transfer, number
from stbp.camera.model import simulate
from stbp.data import ImageSet, load, read_events
from stbp.data.error import DataError
from stbp.data.events.formats import nmnist
from stbp.data.events.sets import load_events
from stbp.data.events.windows import EventWindows
from tests.data.conftest import REAL_DATA
from tests.data.events.sets import bin_bytes, write_zip


def images(n: int, classes: int = 3) -> ImageSet:
    """Bars, whose direction is their class."""
    random = torch.Generator().manual_seed(n)
    shown, labels = torch.zeros(n, 1, 28, 28, dtype=torch.uint8), torch.arange(n) % classes
    for i, label in enumerate(labels.tolist()):
        a, b = torch.randint(6, 18, (2,), generator=random).tolist()
        shown[i, 0, a : a + (3 if label else 12), b : b + (9 if label else 3)] = 255
    return ImageSet(shown, labels, tuple(map(str, range(classes))))


@pytest.fixture
def sets() -> tuple[ImageSet, ImageSet]:
    return images(30), images(8)


def content(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("Train.zip", "Test.zip")]


def test_a_simulated_set_is_read_like_n_mnist(tmp_path, sets):
    camera = presets()["n-mnist"]
    splits = dataset.splits_of(sets, (10, 30))
    found = dataset.simulate_set(splits, tmp_path / "set", camera, 5)
    train, test = load_events(tmp_path / "set", cache=tmp_path / "cache")
    assert (len(train), len(test)) == (20, 8)
    assert train.names[0] == f"{int(sets[0].labels[10])}/00011.bin"
    want = simulate(sets[0].images[12:13, 0].numpy(), camera, 5, [12])
    assert all(np.array_equal(train.events(2)[name], want[name]) for name in "txyp")
    one = read_events(tmp_path / "set" / "Test.zip" / "Test" / "1" / "00002.bin")
    want = simulate(sets[1].images[1:2, 0].numpy(), camera, 5, [(1 << 31) + 1])
    assert np.array_equal(one["t"], want["t"])
    assert found["counts"]["Train"] == {"recordings": 20, "events": len(train.t)}
    kept = json.loads((tmp_path / "set" / dataset.FILE).read_text())
    assert kept["camera"] == json.loads(json.dumps(dataclasses.asdict(camera)))
    assert not list((tmp_path / "set").glob("parts-*"))


def test_a_stopped_simulation_goes_on(tmp_path, sets, monkeypatch):
    camera = presets()["n-mnist"]
    monkeypatch.setattr(dataset, "PART", 7)
    splits = dataset.splits_of(sets)
    dataset.simulate_set(splits, tmp_path / "whole", camera)
    made, real = [], dataset.simulate

    def stopping(shown, *rest):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(len(shown))
        return real(shown, *rest)

    monkeypatch.setattr(dataset, "simulate", stopping)
    with pytest.raises(KeyboardInterrupt):
        dataset.simulate_set(splits, tmp_path / "set", camera)
    assert not (tmp_path / "set" / "Train.zip").exists()
    monkeypatch.setattr(dataset, "simulate", lambda shown, *rest: made.append(len(shown)) or real(shown, *rest))
    dataset.simulate_set(splits, tmp_path / "set", camera)
    assert sum(made) == 38  # nothing twice
    assert content(tmp_path / "set") == content(tmp_path / "whole")
    with pytest.raises(DataError, match="holds a simulation with other parameters"):
        dataset.simulate_set(splits, tmp_path / "set", camera, seed=1)


def simulated_beside_others(out: Path) -> int:
    """In a process of its own; how many recordings it simulated."""
    made, real = [], dataset.simulate
    dataset.PART = 5
    dataset.simulate = lambda shown, *rest: made.append(len(shown)) or real(shown, *rest)
    out.with_suffix(f".{os.getpid()}").touch()
    while len(list(out.parent.glob(f"{out.name}.*"))) < 2:  # both begin together
        time.sleep(0.01)
    dataset.simulate_set(dataset.splits_of((images(300), images(40))), out, presets()["n-mnist"])
    return sum(made)


@pytest.mark.slow
def test_two_processes_share_the_work(tmp_path):
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        made = list(pool.map(simulated_beside_others, [tmp_path / "set"] * 2))
    assert sum(made) == 340  # nothing twice
    assert min(made) > 0
    dataset.simulate_set(dataset.splits_of((images(300), images(40))), tmp_path / "whole", presets()["n-mnist"])
    assert content(tmp_path / "set") == content(tmp_path / "whole")


def test_another_process_that_is_done_first_takes_the_parts_away(tmp_path, monkeypatch):
    splits, camera, out = dataset.splits_of((images(20), images(10))), presets()["n-mnist"], tmp_path / "set"
    work = dataset._simulate_parts

    def overtaken(*arguments: object) -> None:
        monkeypatch.setattr(dataset, "_simulate_parts", work)
        dataset.simulate_set(splits, out, camera)
        monkeypatch.setattr(dataset.filelock, "FileLock", gone)

    def gone(path: Path) -> None:  # between the moments in which a lock makes its folder and its file
        raise FileNotFoundError(path)

    monkeypatch.setattr(dataset, "_simulate_parts", overtaken)
    found = dataset.simulate_set(splits, out, camera)
    assert found == json.loads((out / dataset.FILE).read_text())
    assert sorted(path.name for path in out.iterdir()) == ["Test.zip", "Train.zip", "simulation.json"]


def test_encode_all_is_encode(sets):
    found = simulate(sets[0].images[:3, 0].numpy(), presets()["generic"])
    raws = nmnist.encode_all(found)
    again = nmnist.decode_all(raws, list(map(len, raws)), ["a", "b", "c"])
    assert all(np.array_equal(found[name], again[name]) for name in found)
    assert raws == [nmnist.encode(nmnist.decode(raw, "a")) for raw in raws]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"floor": 0.0}, "floor must be positive"),
        ({"noise": -1.0}, "noise must be 0 or more"),
        ({"height": 241}, "height must be in 1..240"),
        ({"path": ((1.0, 2.0, 3.0), (1.0, 2.0, 3.0))}, "path must be triples"),
        ({"duration_ms": 9000.0}, "duration_ms must be"),
    ],
)
def test_a_camera_that_cannot_be(fields, message):
    with pytest.raises(DataError, match=message):
        Camera(**fields)


def write_real(folder: Path, numbers: range, test: int) -> None:
    random = np.random.default_rng(0)
    for split, ids in (("Train", numbers), ("Test", range(1, test + 1))):
        members = {}
        for n in ids:
            events = np.stack([np.arange(5) * 1000, *random.integers(0, 34, (2, 5)), random.integers(0, 2, 5)], 1)
            members[f"{split}/{n % 3}/{n:05}.bin"] = bin_bytes(events)
        write_zip(folder / f"{split}.zip", members)


def test_no_image_of_a_tested_recording_is_trained_on(tmp_path):
    write_real(tmp_path / "n-mnist", range(1, 1201), 6)
    write_real(tmp_path / "mnist-simulated", range(1, 1501), 3)  # too many: the images of real ones are among them
    train, test = load_transfer(tmp_path, tmp_path / "cache")
    assert isinstance(train.whole, EventWindows)
    assert isinstance(test.whole, EventWindows)
    trained = [train.whole.recordings.names[i] for i in train.samples.tolist()]
    tested = [test.whole.recordings.names[i] for i in test.samples.tolist()]
    numbers = {number(name) for name in trained}
    assert numbers == set(range(SHOWN + 1, 1501))
    assert len(tested) == 800 + 6
    assert min(map(number, tested[:800])) == 201
    assert not numbers & set(map(number, tested[:800]))


def test_what_is_missing_is_named_with_its_command(tmp_path):
    with pytest.raises(
        DataError, match=r"no simulated recordings; make them with: stbp data simulate .*mnist-simulated"
    ):
        load_transfer(tmp_path)


def test_simulated_recordings_are_like_the_real_ones(tmp_path, run_stbp):
    if not REAL_DATA or not (Path(REAL_DATA) / "n-mnist-1100").is_dir():
        pytest.skip("STBP_DATA names no folder with n-mnist-1100/")
    command = ["data", "simulate", Path(REAL_DATA) / "mnist", tmp_path / "set", "--train", 200, 260, "--test", 0, 100]
    code, out, _ = run_stbp(*command)
    assert code == 0
    assert "Train.zip: 60 recordings" in out
    real, simulated = load_events(Path(REAL_DATA) / "n-mnist-1100")[0], load_events(tmp_path / "set")[0]
    place = {name: index for index, name in enumerate(real.names)}
    counts, likeness = [], []
    for index, name in enumerate(simulated.names):
        assert number(name) > FITTED
        pair = real.events(place[name]), simulated.events(index)
        pictures = [np.bincount(e["y"] * 68 + e["x"] * 2 + e["p"], minlength=34 * 68) for e in pair]
        counts.append([len(e) for e in pair])
        likeness.append(np.corrcoef(pictures[0], pictures[1])[0, 1])
    shown, made = np.array(counts).T
    assert 0.95 < made.sum() / shown.sum() < 1.05
    assert np.mean(likeness) > 0.92


def test_the_generic_preset_is_another_path_and_nothing_else(tmp_path, run_stbp, monkeypatch):
    made = {}
    monkeypatch.setattr(
        dataset, "simulate_set", lambda splits, out, camera, seed: made.update(camera=camera) or {"counts": {}}
    )
    monkeypatch.setattr(dataset, "read_source", lambda source, size: (images(3), images(2)))
    fields = ["--threshold-on", 0.3, "--ink", "False", "--offset", 1, -1]
    assert run_stbp("data", "simulate", "x", tmp_path, "--preset", "generic", *fields)[0] == 0
    path = tuple((t, x + 1, y - 1) for t, x, y in Camera.path)
    assert made["camera"] == dataclasses.replace(presets()["n-mnist"], threshold_on=0.3, ink=False, path=path)
    code, _, err = run_stbp("data", "simulate", "x", tmp_path, "--preset", "generic", "--path", 0, 1, 1)
    assert code == 2
    assert "omit one of them" in err


def test_light_on_a_dark_screen_gives_the_events_of_ink_with_their_signs_changed():
    shown = load("digits")[0].images[:20, 0].numpy()
    still = dataclasses.replace(presets()["n-mnist"], background_on_hz=0.0, duration_ms=60.0, floor=5.0)

    def pictures(ink: bool) -> np.ndarray:
        found = simulate(shown, dataclasses.replace(still, ink=ink, threshold_on=0.02, threshold_off=0.02, noise=0.0))
        place = found["p"].astype(int) * 34 * 34 + found["y"].astype(int) * 34 + found["x"]
        return np.bincount(place, minlength=2 * 34 * 34).reshape(2, -1)

    dark, light = pictures(True), pictures(False)
    for p in (0, 1):
        assert np.corrcoef(dark[p], light[1 - p])[0, 1] > 0.8
        assert np.corrcoef(dark[p], light[p])[0, 1] < 0.5
