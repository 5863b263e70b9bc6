from pathlib import Path

import pytest
import torch

import stbp
from stbp import nn
from stbp.data.dataset import Windows
from stbp.data.images import ImageSet
from stbp.experiments import registry
from stbp.experiments.datasets import for_experiment
from stbp.ops.spikes import Spikes
from stbp.paper import study
from stbp.train.evaluate import Run, predictions
from stbp.train.progress import Silent
from stbp.train.source import source

SMALL = registry.experiment("digits-mlp").replace(network="64-30-10", T=5, epochs=3)
FOLDER = Path(stbp.__file__).parent.parent / "results"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    torch.set_num_threads(1)
    stbp.fit(SMALL, out=folder, report=Silent())
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return stbp.load_run(folder)


def test_accuracy_after_some_steps_is_that_of_a_window_so_long(run: Run):
    _, test = for_experiment(SMALL)
    found = study.accuracy_by_step(run.network, test)
    assert found[-1] == pytest.approx(run.test_accuracy, abs=1e-7)
    assert found[0] < found[-1]
    for T in (1, 3):
        shorter = for_experiment(SMALL.replace(T=T))[1]
        short = predictions(run.network, source(shorter, None, 0, torch.device("cpu"), "test").plain())
        right = sum(int((predicted == y).sum()) for predicted, y in short)
        assert found[T - 1] == pytest.approx(right / len(test), abs=1e-7)


def test_density_is_that_of_the_input_and_one_is_the_test_set_itself(run: Run):
    _, test = for_experiment(SMALL)
    found = {row["scale"]: row for row in study.accuracy_by_density(run.network, test)}
    assert found[1.0]["accuracy"] == run.test_accuracy
    assert found[1.0]["input_rate"] == test.rate()
    assert found[0.5]["input_rate"] == pytest.approx(found[1.0]["input_rate"] / 2, rel=0.02)
    assert found[4.0]["input_rate"] < 4 * found[1.0]["input_rate"]  # no pixel fires more often than in every step
    assert found[0.1]["accuracy"] < found[1.0]["accuracy"]


def test_operations_are_spikes_times_the_neurons_they_reach(run: Run):
    _, test = for_experiment(SMALL)
    ids = torch.arange(len(test))
    x = test.window(ids, 0, torch.device("cpu"))
    assert isinstance(x, Spikes)
    hidden = run.network.record(x)[0].o
    first, second = study.operations(run.network, test)
    assert first["synaptic"] == pytest.approx(30 * x.dense().sum().item() / len(test))
    assert second["synaptic"] == pytest.approx(10 * hidden.sum().item() / len(test))
    assert (first["twin"], second["twin"]) == (64 * 30, 30 * 10)
    assert first["layer"] == "layer 0 (Linear 64-30)"


@pytest.mark.parametrize(("row", "column", "reached"), [(0, 0, 1), (0, 2, 3), (2, 2, 9), (5, 4, 2)])
def test_a_pixel_reaches_as_many_neurons_of_a_map_as_kernels_cover_it(row: int, column: int, reached: int):
    images = torch.zeros(3, 1, 6, 6, dtype=torch.uint8)
    images[:, :, row, column] = 255  # fires in every step
    samples = ImageSet(images, torch.zeros(3, dtype=torch.int64), ("a", "b"))
    e = SMALL.replace(network="6x6-4C3-P2-2", T=7)
    conv, dense = study.operations(nn.build(e.network), Windows(samples, e.window))
    assert conv["synaptic"] == 7 * 4 * reached
    assert (conv["twin"], dense["twin"]) == (4 * 4 * 4 * 9, 4 * 2 * 2 * 2)
    assert dense["synaptic"] <= 7 * dense["twin"]


def test_what_is_measured_says_of_what_and_reads_as_tables(folder: Path, run: Run):
    found = study.measure(folder)
    assert found["experiment"] == {k: v for k, v in SMALL.flat().items() if k not in ("seed", "fold", "folds")}
    assert found["trained_at"] == run.summary["commit"]
    assert len(found["accuracy_by_step"]) == SMALL.T
    assert len(found["density"]) == len(study.SCALES)
    *layers, last = study.rows(found)
    assert (len(layers), last["layer"], last["twin"]) == (2, "all", 64 * 30 + 30 * 10)
    assert 0 < last["synaptic"] < SMALL.T * last["twin"]
    assert [grid.row_count for grid in study.grids(found)] == [SMALL.T, len(study.SCALES), 3]


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        (SMALL.replace(encoding="static"), "spiking networks with encoding bernoulli"),
        (registry.experiment("recall").replace(T=8, batch_size=1000), "and no readout"),
        (registry.experiment("recall").replace(T=8, batch_size=1000, readout=None), "on images; got dataset recall"),
    ],
)
def test_what_cannot_be_measured_is_refused(experiment, message: str, tmp_path: Path):
    stbp.fit(experiment.replace(epochs=1), out=tmp_path / "run", report=Silent())
    with pytest.raises(ValueError, match=message):
        study.measure(tmp_path / "run")


def test_an_unfinished_run_is_refused(folder: Path, tmp_path: Path):
    for file in folder.iterdir():
        if file.name != "summary.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match="holds no finished run"):
        study.measure(tmp_path)


def test_published_measurements_are_of_the_networks_that_are_studied():
    names = {e.name for e in study.studied()}
    for path in (FOLDER / "beyond").glob("*.json"):
        assert path.stem in names
        found = study.read(registry.experiment(path.stem), [FOLDER])
        assert found is not None
        assert found["experiment"]["name"] == path.stem
        assert not found["commit"].endswith("+")
        scaled = {row["scale"]: row["accuracy"] for row in found["density"]}
        assert found["accuracy_by_step"][-1] == pytest.approx(scaled[1.0], abs=1e-6)
