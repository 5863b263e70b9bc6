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

from stbp.camera import dataset, fidelity, fit, track
from stbp.camera.model import Camera, presets, simulate
from stbp.camera.transfer import SHOWN, load_transfer
from stbp.cli import data
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
    kept = dataset.read_simulation(tmp_path / "set")
    assert kept is not None
    assert kept["camera"] == camera
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
    numbers = {fidelity.number(name) for name in trained}
    assert numbers == set(range(SHOWN + 1, 1501))
    assert len(tested) == 800 + 6
    assert min(map(fidelity.number, tested[:800])) == 201
    assert not numbers & set(map(fidelity.number, tested[:800]))


def test_what_is_missing_is_named_with_its_command(tmp_path):
    with pytest.raises(
        DataError, match=r"no simulated recordings; make them with: stbp data simulate .*mnist-simulated"
    ):
        load_transfer(tmp_path)


def first_saccade() -> Camera:
    """No jitter, a third of the time."""
    return dataclasses.replace(presets()["n-mnist"], jitter_px=0.0, jitter_ms=0.0, duration_ms=105.0)


def test_the_path_is_found_again():
    camera = first_saccade()
    shown = images(10).images[:, 0].numpy()
    start = dataclasses.replace(camera, path=((0.0, 13.7, 15.2), (105.0, 13.7, 15.2)))
    found = track.tracked(simulate(shown, camera, 3), shown, start)
    want = np.array(camera.path)[: len(found.path), 1:]
    assert np.abs(np.array(found.path)[: len(want), 1:] - want).max() < 0.5
    assert np.sqrt(((np.array(found.path)[: len(want), 1:] - want) ** 2).mean()) < 0.12


def test_a_fit_finds_thresholds_and_background_again():
    true = first_saccade()
    shown = images(12).images[:, 0].numpy()
    start = dataclasses.replace(true, threshold_on=0.36, threshold_off=0.2, background_on_hz=0.0)
    events = simulate(shown, true, 9)
    found = fit.fit(events, shown, start, rounds=1)
    assert found.after < found.before / 3
    for name in ("threshold_on", "threshold_off"):
        wrong, was = (abs(getattr(camera, name) - getattr(true, name)) for camera in (found.camera, start))
        assert wrong < 0.6 * was
    assert found.camera.background_on_hz == pytest.approx(true.background_on_hz, rel=0.2)
    assert set(found.freedom) == set(fit.FREE)


def test_the_commands(tmp_path, capsys):
    if not REAL_DATA or not (Path(REAL_DATA) / "n-mnist-1100").is_dir():
        pytest.skip("STBP_DATA names no folder with n-mnist-1100/")
    real, mnist = Path(REAL_DATA) / "n-mnist-1100", Path(REAL_DATA) / "mnist"
    for seed, name in enumerate(("one", "two")):
        data.run(["simulate", str(mnist), str(tmp_path / name), "--train", "200", "260", "--test", "0", "100",
                  "--seed", str(seed)])  # fmt: skip
    capsys.readouterr()
    picture = tmp_path / "compare.png"
    data.run(["compare", str(real), str(tmp_path / "one"), "--second", str(tmp_path / "two"), "--json",
              "--out", str(picture)])  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert picture.read_bytes().startswith(b"\x89PNG")
    training, test = found["training"], found["test"]
    assert (training["recordings"], test["recordings"]) == (60, 100)
    assert test["correlation"]["same_image"] > 0.87
    assert training["correlation"]["same_image"] > 0.92
    assert 0.95 < test["ratio_pooled"] < 1.05
    assert training["ratio_sd"] < 0.05
    assert training["rate_rmse"] < 0.2
    assert training["correlation"]["second_simulation"] > training["correlation"]["same_image"]
    assert training["correlation"]["same_class"] > training["correlation"]["other_class"]


def test_the_wrong_polarity_is_told():
    shown = load("digits")[0].images[:20, 0].numpy()
    camera = presets()["n-mnist"]
    dark, light = (fidelity.statistics(simulate(shown, dataclasses.replace(camera, ink=ink))) for ink in (True, False))
    again = fidelity.statistics(simulate(shown, camera, 1))
    assert fidelity.correlation(dark.images, again.images).mean() > 0.9
    assert fidelity.correlation(dark.images, light.images).mean() < 0.6
