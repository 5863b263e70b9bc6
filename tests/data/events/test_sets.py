import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stbp import Spikes, nn
from stbp.data.error import DataError
from stbp.data.events.formats.record import EVENT
from stbp.data.events.frames.options import Augmentation, FrameOptions
from stbp.data.events.sets import EventSet, joined, load_events
from tests.data.conftest import REAL_DATA, files_in
from tests.data.events.sets import bin_bytes, write_set, write_zip


@pytest.fixture
def sets(tmp_path: Path) -> tuple[EventSet, EventSet]:
    write_set(tmp_path / "data" / "n-mnist")
    return load_events("n-mnist", tmp_path / "data", cache=tmp_path / "stores")


def bits(frames: Spikes | torch.Tensor) -> torch.Tensor:
    assert isinstance(frames, Spikes)
    return frames.bits


def test_a_set_is_what_its_archives_hold(tmp_path: Path, sets: tuple[EventSet, EventSet]):
    for found, split in zip(sets, write_set(tmp_path), strict=True):
        assert len(found) == len(split) == len(found.labels)
        assert (found.shape, found.classes) == ((2, 34, 34), ("0", "1", "2"))
        assert found.names == [member.split("/", 1)[1] for member in split]
        assert [found.classes[label] for label in found.labels] == [name[0] for name in found.names]
        for index in (0, 2, len(split) - 1):
            events = found.events(index)
            assert events.dtype == EVENT
            assert [list(event) for event in events.tolist()] == list(
                split[f"{_top(split)}/{found.names[index]}"].tolist()
            )


def _top(split: dict[str, np.ndarray]) -> str:
    return next(iter(split)).split("/")[0]


def test_frames_go_into_a_network(sets: tuple[EventSet, EventSet]):
    frames = sets[0].frames(torch.tensor([5, 2, 7]), 8, FrameOptions("time"))
    assert isinstance(frames, Spikes)
    assert frames.shape == (8, 3, 2, 34, 34)
    assert nn.build("34x34x2-20-3")(frames).shape == (8, 3, 3)
    assert frames[:, 1:2].density() == 0  # the third recording is empty


def test_rate_is_the_mean_of_the_frames(sets: tuple[EventSet, EventSet]):
    for options in (FrameOptions(), FrameOptions(counts=True)):
        frames = sets[0].frames(torch.arange(150), 30, options)
        dense = frames.dense() if isinstance(frames, Spikes) else frames
        assert sets[0].rate(30, options) == pytest.approx(dense.double().mean().item(), rel=1e-12)


def test_rate_looks_at_no_more_than_a_thousand_spread_over_the_set(sets, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("stbp.data.dataset.RATE_SAMPLES", 10)
    frames = sets[0].frames(torch.arange(0, 150, 15), 30)
    assert sets[0].rate(30) == pytest.approx(frames.density(), rel=1e-12)


def test_augmented_frames_do_not_depend_on_the_batch(sets: tuple[EventSet, EventSet]):
    change = Augmentation(1, 0.2, 500)
    whole = bits(sets[0].frames(torch.arange(20), 30, None, change, seed=3, epoch=4))
    part = bits(sets[0].frames(torch.tensor([11, 4]), 30, None, change, seed=3, epoch=4))
    assert torch.equal(part, whole[:, [11, 4]])


def test_joined_sets_hold_the_recordings_of_both_in_order(sets: tuple[EventSet, EventSet]):
    both = joined(*sets)
    assert both.names == sets[0].names + sets[1].names
    assert torch.equal(both.labels, torch.cat([one.labels for one in sets]))
    for index, (one, own) in ((3, (sets[0], 3)), (149, (sets[0], 149)), (150, (sets[1], 0)), (169, (sets[1], 19))):
        assert np.array_equal(both.events(index), one.events(own))
    assert torch.equal(bits(both.frames(torch.tensor([160]), 30)), bits(sets[1].frames(torch.tensor([10]), 30)))
    with pytest.raises(DataError, match="at least one"):
        joined()


def test_a_class_that_only_one_split_has_keeps_its_name(tmp_path: Path):
    event = bin_bytes(np.array([[1, 2, 3, 1]]))
    write_zip(tmp_path / "Train.zip", {"Train/10/1.bin": event, "Train/3/2.bin": event})
    write_zip(tmp_path / "Test.zip", {"Test/4/3.bin": event, "Test/10/4.bin": event})
    train, test = load_events(tmp_path, cache=tmp_path / "stores")
    assert train.classes == test.classes == ("3", "4", "10")
    assert (train.labels.tolist(), test.labels.tolist()) == ([2, 0], [1, 2])


def test_a_set_is_found_by_argument_environment_or_in_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    write_set(cache / "n-mnist", train=4)
    write_set(tmp_path / "environment" / "n-mnist-small", train=5)
    write_set(tmp_path / "argument", train=6)
    with caplog.at_level(logging.INFO):
        assert len(load_events()[0]) == 4
        monkeypatch.setenv("STBP_DATA", str(tmp_path / "environment"))
        assert len(load_events()[0]) == 5
        assert len(load_events("n-mnist", tmp_path / "argument")[0]) == 6
        assert len(load_events(tmp_path / "argument")[0]) == 6
    assert f"{cache / 'n-mnist'}: 4 training and 20 test recordings" in caplog.text
    assert len([name for name in files_in(cache / "events") if name.endswith(".safetensors")]) == 6


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("n-mnist", "empty", r"empty: no n-mnist in it nor in its n-mnist\*/, looked for Train.zip"),
        ("n-mnist", "nowhere", "--data .*nowhere: no such folder"),
        ("nowhere", None, "event data set .*nowhere: no such folder"),
        ("empty", "empty", "omit --data"),
    ],
)
def test_a_set_that_is_not_there_is_one_line(tmp_path: Path, name: str, data: str | None, message: str):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message) as error:
        load_events(name if name == "n-mnist" else tmp_path / name, None if data is None else tmp_path / data)
    assert "\n" not in str(error.value)


def test_importing_the_store_does_not_import_torch():
    code = "import stbp.data.events.store, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.skipif(not REAL_DATA, reason="STBP_DATA is not set: no real N-MNIST here")
def test_the_real_recordings(tmp_path: Path):
    """Counts and statistics of the first 1,000 training and 100 test recordings of N-MNIST, if these are they."""
    try:
        train, test = load_events("n-mnist", REAL_DATA, cache=tmp_path)
    except DataError as error:
        pytest.skip(str(error))
    if (len(train), len(test)) != (1000, 100):
        pytest.skip("not the 1,100 recordings")
    lengths = torch.cat([train.offsets.diff(), test.offsets.diff()])
    assert (int(lengths.min()), int(lengths.max()), round(lengths.double().mean().item())) == (1069, 7152, 4108)
    on = sum(int(one.events(i)["p"].sum()) for one in (train, test) for i in range(len(one)))
    assert on / int(lengths.sum()) == pytest.approx(0.4979, abs=5e-5)
    assert train.rate(30) == pytest.approx(0.039, abs=0.001)
