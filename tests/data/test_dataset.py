"""The loop trains on anything that keeps the contract of `DataSet`."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

import stbp
from stbp.config import Experiment, Window
from stbp.data import DataSet, ImageSet, Windows, load
from stbp.experiments.datasets import Ready
from stbp.ops.spikes import Spikes
from stbp.plot import runs
from stbp.train.progress import Silent

STEPS = 6


class Flashes:
    """Two classes seen by a sensor of two channels, 3x4: each flashes in a channel of its own, at random pixels."""

    classes = ("left", "right")
    shape = (2, 3, 4)

    def __init__(self, n: int):
        self.labels = torch.arange(n) % 2
        self.asked: list[tuple[int, list[int]]] = []

    def __len__(self) -> int:
        return len(self.labels)

    def rate(self) -> float:
        return 0.25

    def window(self, ids: Tensor, epoch: int, device: torch.device) -> Spikes:
        self.asked.append((epoch, ids.tolist()))
        o = torch.zeros(STEPS, len(ids), *self.shape)
        for b, sample in enumerate(ids.tolist()):
            chance = torch.Generator().manual_seed(1000 * epoch + sample)
            o[:, b, self.labels[sample]] = (torch.rand(STEPS, 3, 4, generator=chance) < 0.5).float()
        return Spikes.pack(o).to(device)

    def picture(self, sample: int) -> Tensor:
        picture = torch.zeros(self.shape, dtype=torch.uint8)
        picture[self.labels[sample]] = 255
        return picture


@pytest.fixture
def sets(monkeypatch: pytest.MonkeyPatch) -> tuple[DataSet, DataSet]:
    found = Flashes(60), Flashes(20)
    monkeypatch.setattr("stbp.experiments.run.ready", lambda experiment, data: Ready(experiment, *cast(Any, found)))
    return found


EXPERIMENT = Experiment.of(name="flashes", dataset="digits", network="3x4x2-8-2", T=STEPS, epochs=3, batch_size=10)


def test_another_kind_of_data_trains_evaluates_and_is_drawn(sets, tmp_path: Path):
    run = stbp.fit(EXPERIMENT, learning_rate=1e-2, out=tmp_path, report=Silent())
    assert run.test_accuracy == 1.0
    assert run.shape == (2, 3, 4)
    assert run.classes == ("left", "right")
    assert stbp.evaluate(tmp_path).confusion.tolist() == [[10, 0], [0, 10]]
    figure = runs.raster(run, sets[1], 3)
    assert "label right" in figure.get_suptitle()
    assert runs.rates(run, sets[1]).axes


def test_epoch_0_is_asked_for_by_evaluation_and_never_by_training(sets):
    stbp.fit(EXPERIMENT, epochs=2, report=Silent())
    train_set, test_set = sets
    assert {epoch for epoch, _ in test_set.asked} == {0}
    trained = [(epoch, sample) for epoch, ids in train_set.asked if epoch for sample in ids]
    assert sorted(trained) == [(epoch, sample) for epoch in (1, 2) for sample in range(60)]


def test_a_network_that_does_not_fit_the_data_is_told_its_shape(sets):
    with pytest.raises(ValueError, match="whose samples are 2 x 3 x 4"):
        stbp.fit(EXPERIMENT, network="25-2", report=Silent())


def test_images_keep_the_contract():
    train, _ = load("digits")
    samples: DataSet = Windows(train, Window(T=6))
    assert isinstance(samples, DataSet)
    assert samples.shape == (1, 8, 8)
    assert samples.rate() == pytest.approx(train.images.double().mean().item() / 255, abs=1e-12)
    assert samples.window(torch.tensor([3, 5]), 1, torch.device("cpu")).shape == (6, 2, 1, 8, 8)
    assert torch.equal(samples.picture(3), train.images[3])
    empty = ImageSet(train.images[:0], train.labels[:0], train.classes)
    assert Windows(empty, Window()).rate() == 0.0
