import dataclasses
import json
from pathlib import Path

import platformdirs
import pytest

import stbp
from stbp.cli import reproduce
from stbp.data import load
from stbp.experiments import registry, results
from stbp.experiments.datasets import for_experiment
from stbp.experiments.jobs import Job
from stbp.paper.quick import tiny, write_data
from stbp.paper.reproduce import Plan, folder_of, wanted
from stbp.paper.tables import FIGURES, TABLES, Row, Table, groups
from stbp.train import runs
from stbp.train.progress import Silent

SMALL = registry.experiment("digits-mlp").replace(network="64-10", T=2, epochs=1)
FOLDS = SMALL.replace(folds=2, fold=0)


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and collections come from a commit without changes."""
    monkeypatch.setattr(runs, "commit", lambda: "0123456789ab")


def train(job: Job) -> None:
    stbp.fit(job.experiment, out=job.folder, report=Silent())


@pytest.mark.slow
def test_everything_is_walked_through_and_nothing_is_published(run_stbp, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name, **_: tmp_path / "cache")
    before = sorted(results.FOLDER.rglob("*"))
    code, out, err = run_stbp("reproduce", "all", "--quick", "--json")
    assert code == 0, err
    content = json.loads(out)
    assert content["quick"] is True
    assert [group["name"] for group in content["groups"]] == list(groups())
    for group, shown in zip(groups().values(), content["groups"], strict=True):
        parts = group.rows if isinstance(group, Table) else group.curves
        assert [row["label"] for row in shown["rows"]] == [part.label for part in parts]
        for part, row in zip(parts, shown["rows"], strict=True):
            assert len(row["measured"]) == len(part.paper) + len(part.tuned)
            assert all(0 <= measured["accuracy"]["mean"] <= 1 for measured in row["measured"])
    assert list(content["inference"]) == ["mnist-mlp-400-tuned", "mnist-cnn-tuned"]
    assert all(len(found["operations"]) >= 2 for found in content["inference"].values())
    stopped = {
        m["name"] for group in content["groups"] for row in group["rows"] for m in row["measured"] if m["health"]
    }
    assert "mnist-mlp-400-paper" in stopped  # the constants as printed are silent
    assert "mnist-mlp-400" not in stopped
    assert sorted(results.FOLDER.rglob("*")) == before
    assert list(tmp_path.iterdir()) == []


def test_the_quick_numbers_are_called_meaningless(run_stbp):
    code, out, _ = run_stbp("reproduce", "fashion", "--quick")
    assert code == 0
    assert "These numbers mean nothing" in out
    assert "fashion-mlp" in out


def test_what_is_published_is_shown_without_running_anything(run_stbp, tmp_path: Path):
    code, out, _ = run_stbp("reproduce", "table2", "--seeds", 0, "--out", tmp_path)
    assert code == 0
    assert "98.89" in out
    assert "recalled" in out
    assert "not yet run" in out  # with the paper's constants
    mean = json.loads((results.FOLDER / "mnist-mlp.json").read_text())["test_accuracy"]
    assert f"{100 * sum(mean) / len(mean):.2f}" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "stbp reproduce needs a name: table2"),
        (["tabel2"], "did you mean table2?"),
        (["table2", "--seeds", "-1"], "seeds must be 0 or more; got -1"),
        (["table2", "--quick", "--data", "x"], "have no effect with --quick"),
        (["table2", "--quick", "--jobs", "2"], "have no effect with --quick"),
        (["table2", "--jobs", "0"], "jobs must be at least 1; got 0"),
    ],
)
def test_a_mistake_is_one_line(args, message, run_stbp, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run_stbp("reproduce", *args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_data_that_is_missing_fails_those_runs_and_shows_the_rest(run_stbp, tmp_path: Path, monkeypatch):
    row = Row("STBP", "784-800-10", 0.9, "recalled", tuned=(registry.experiment("mnist-mlp").replace(T=1, epochs=1),))
    monkeypatch.setattr(reproduce, "groups", lambda: {"table2": Table("Table 2", "nothing", (row,))})
    (tmp_path / "empty").mkdir()
    args = ("--seeds", 2, "--data", tmp_path / "empty", "--out", tmp_path / "runs", "--jobs", 1)
    code, out, err = run_stbp("reproduce", "table2", *args)
    assert code == 2
    assert "2 of 2 runs failed, the others are there; mnist-mlp: --data" in err
    assert "not yet run" in out


def test_the_number_of_seeds_is_the_presets_or_the_callers():
    found = wanted(TABLES, None)
    assert found[registry.experiment("mnist-mlp-400")] == 5
    assert found[registry.experiment("mnist-mlp-400-paper")] == 1
    assert set(wanted([*TABLES, *FIGURES], 3).values()) == {3}


def test_what_is_missing_is_run_and_seeds_are_added_later(tmp_path: Path, clean):
    published = tmp_path / "results"
    first = Plan({SMALL: 2}, tmp_path / "runs", published)
    jobs = first.jobs()
    assert [job.experiment.seed for job in jobs] == [0, 1]
    train(jobs[0])
    assert [job.experiment.seed for job in first.jobs()] == [1]
    (path,) = published.rglob("*.json")
    assert path.parent == published / "variants"  # another network than the registered one
    assert json.loads(path.read_text())["seeds"] == [0]
    elsewhere = Plan({SMALL: 3}, tmp_path / "others", published)  # a checkout that has the results alone
    more = elsewhere.jobs()
    assert [job.experiment.seed for job in more] == [1, 2]
    for job in more:
        train(job)
    assert elsewhere.jobs() == []
    result = json.loads(path.read_text())
    assert result["seeds"] == [0, 1, 2]
    assert result["test_accuracy"] == [run["summary"]["test_accuracy"] for run in result["runs"]]
    assert [run["summary"]["seed"] for run in result["runs"]] == [0, 1, 2]
    assert Plan({SMALL: 2}, tmp_path / "none", published).jobs() == []


def test_a_cross_validation_is_collected_when_every_fold_is_there(tmp_path: Path, clean):
    plan = Plan({FOLDS: 5}, tmp_path / "runs", tmp_path / "results")
    jobs = plan.jobs()
    assert [job.experiment.fold for job in jobs] == [0, 1]
    assert jobs[1].folder == tmp_path / "runs/digits-mlp-network-64-10-T-2-epochs-1-seed0-2-folds/1"
    train(jobs[0])
    assert len(plan.jobs()) == 1
    assert plan.results() == []
    train(jobs[1])
    assert plan.jobs() == []
    assert [result["folds"] for result in plan.results()] == [2]


def test_runs_lie_where_train_puts_them():
    assert folder_of(registry.experiment("mnist-mlp").replace(seed=3), Path("runs")) == Path("runs/mnist-mlp-seed3")


def test_runs_of_changed_code_are_not_published(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(runs, "commit", lambda: "0123456789ab+")
    plan = Plan({SMALL: 1}, tmp_path / "runs", tmp_path / "results")
    (job,) = plan.jobs()
    train(job)
    assert plan.jobs() == []
    assert not (tmp_path / "results").exists()
    assert len(list((tmp_path / "runs/results").rglob("*.json"))) == 1
    assert len(plan.results()) == 1


def test_a_run_that_was_stopped_because_it_cannot_learn_is_a_result_of_its_own(tmp_path: Path, clean):
    dead = SMALL.replace(threshold=50.0, init="paper", schedule="constant", epochs=3)
    plan = Plan({dead: 1}, tmp_path / "runs", tmp_path / "results")
    (job,) = plan.jobs()
    train(dataclasses.replace(job, experiment=dead.replace(epochs=1)))
    assert plan.jobs() == []
    (result,) = plan.results()
    assert result["experiment"]["epochs"] == 1
    assert "--epochs 1" in result["command"]
    assert plan.jobs() == []


@pytest.mark.slow
def test_a_network_is_trained_to_be_measured_even_if_its_result_is_known(tmp_path: Path, clean):
    e, published = registry.experiment("digits-mlp").replace(epochs=1, T=2), tmp_path / "results"
    first = Plan({e: 1}, tmp_path / "runs", published)
    train(first.jobs()[0])
    assert first.jobs() == []
    plan = Plan({}, tmp_path / "others", published, (e,))
    assert plan.study(e) is None
    (job,) = plan.jobs()
    assert job.experiment == e
    assert plan.measure(None, "cpu") == []  # nothing is trained yet
    train(job)
    (path,) = plan.measure(None, "cpu")
    assert path == published / "beyond/digits-mlp-T-2-epochs-1.json"
    assert plan.study(e) == json.loads(path.read_text())
    assert plan.measure(None, "cpu") == []
    assert Plan({}, tmp_path / "none", published, (e,)).jobs() == []
    path.write_text(path.read_text().replace('"threshold": 0.3', '"threshold": 0.4'))
    assert plan.study(e) is None  # what was measured is a network of other settings


def test_measurements_of_changed_code_are_not_published(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(runs, "commit", lambda: "0123456789ab+")
    plan = Plan({}, tmp_path / "runs", tmp_path / "results", (SMALL,))
    train(plan.jobs()[0])
    (path,) = plan.measure(None, "cpu")
    assert path.parent == tmp_path / "runs/results/beyond"
    assert not (tmp_path / "results").exists()


def test_networks_that_were_not_measured_are_shown_with_the_command(run_stbp, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    code, out, err = run_stbp("reproduce", "inference", "--seeds", 0, "--out", tmp_path / "runs")
    assert (code, err) == (0, "")
    assert out.count("not yet run: stbp reproduce inference --data DIR") == 2
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_run_is_gone_on_with(tmp_path: Path, clean):
    plan = Plan({SMALL: 1}, tmp_path / "runs", tmp_path / "results")
    (job,) = plan.jobs()
    train(job)
    (job.folder / "summary.json").unlink()
    assert plan.jobs() == [job]
    assert plan.results() == []


def test_the_made_up_data_is_read_like_the_real(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name, **_: tmp_path / "cache")
    write_data(tmp_path)
    for name, shape, size in (("mnist", (1, 28, 28), None), ("pedestrian", (1, 28, 28), 28)):
        train_set, test_set = load(name, tmp_path, size)
        assert (train_set.shape, len(train_set), len(test_set)) == (shape, 40, 20)
    recordings, _ = for_experiment(tiny(registry.experiment("nmnist-mlp")), tmp_path)
    assert (recordings.shape, len(recordings)) == ((2, 34, 34), 40)


def test_the_tiny_experiments_keep_what_makes_them_different():
    for group in groups().values():
        for part in group.rows if isinstance(group, Table) else group.curves:
            made = {tiny(e) for e in (*part.paper, *part.tuned)}
            assert len(made) == len(part.paper) + len(part.tuned)
