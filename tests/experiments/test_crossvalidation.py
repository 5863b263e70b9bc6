"""Cross-validation: who is in which fold, and what comes out of training every one of them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stbp
from stbp.cli.main import main
from stbp.config import Experiment
from stbp.data import DataError, load
from stbp.data.dataset import Samples
from stbp.data.folds import Part, fold_of, split
from stbp.experiments import registry, results
from stbp.experiments.crossvalidation import FILE, crossvalidate
from stbp.experiments.datasets import for_experiment
from stbp.experiments.run import evaluate
from stbp.ops.spikes import Spikes
from stbp.train.progress import Silent
from tests.data.conftest import REAL_DATA
from tests.data.events.sets import write_set

FIELDS: dict[str, Any] = {"network": "64-20-10", "T": 3, "epochs": 2, "learning_rate": 1e-2}
SMALL = registry.experiment("digits-mlp").replace(**FIELDS, folds=4, fold=0)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("folds")
    return folder, crossvalidate(SMALL, out=folder, report=Silent())


def dense(samples: Samples, ids: torch.Tensor, experiment: Experiment, epoch: int) -> torch.Tensor:
    x = samples.encoded(ids, experiment.window, experiment.seed, epoch, torch.device("cpu"))
    assert isinstance(x, Spikes)
    return x.dense()


def plain_folds(labels: list[int], folds: int) -> list[int]:
    """The documented rule, word by word."""
    numbered = [i for c in sorted(set(labels)) for i in range(len(labels)) if labels[i] == c]
    return [numbered.index(i) % folds for i in range(len(labels))]


@pytest.mark.parametrize("folds", [2, 3, 10])
def test_a_fold_is_what_its_rule_says_and_has_its_share_of_every_class(folds):
    labels = torch.from_numpy(np.random.default_rng(folds).integers(0, 4, 101))
    found = fold_of(labels, folds)
    assert found.tolist() == plain_folds(labels.tolist(), folds)
    for chosen in (torch.ones(101, dtype=torch.bool), *(labels == c for c in range(4))):
        sizes = torch.bincount(found[chosen], minlength=folds)
        assert int(sizes.max() - sizes.min()) <= 1


def test_every_sample_is_tested_once_and_never_trained_on_in_that_fold():
    whole, _ = load("digits")
    tested = torch.zeros(len(whole), dtype=torch.int64)
    for fold in range(4):
        train, test = split(whole, 4, fold)
        assert sorted([*train.samples.tolist(), *test.samples.tolist()]) == list(range(len(whole)))
        tested[test.samples] += 1
    assert (tested == 1).all()


def test_a_part_shows_the_samples_of_the_whole_under_their_own_random_numbers():
    whole, _ = load("digits")
    part = Part(whole, torch.tensor([7, 3, 900]))
    ids = torch.tensor([2, 0])
    seen, expected = (dense(samples, at, SMALL, 1) for samples, at in ((part, ids), (whole, part.samples[ids])))
    assert torch.equal(seen, expected)
    assert part.labels.tolist() == whole.labels[part.samples].tolist()
    assert torch.equal(part.picture(1), whole.picture(3))
    assert (len(part), part.shape, part.classes) == (3, whole.shape, whole.classes)
    mean = dense(part, torch.arange(3), SMALL, 0).mean().item()
    assert part.encoded_rate(SMALL.window, SMALL.seed) == pytest.approx(mean)


def test_more_folds_than_samples_are_refused():
    with pytest.raises(DataError, match="at most the number of samples, 1797; got 2000"):
        for_experiment(SMALL.replace(folds=2000))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"folds": 1, "fold": 0}, "folds must be at least 2; got 1"),
        ({"folds": 3}, "folds and fold go together; got folds 3, fold None"),
        ({"fold": 0}, "folds and fold go together"),
        ({"folds": 3, "fold": 3}, r"fold must be in 0\.\.2 with folds 3; got 3"),
        ({"folds": 3, "fold": -1}, r"fold must be in 0\.\.2"),
    ],
)
def test_fields_that_make_no_fold_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        registry.experiment("digits-mlp").replace(**fields)


def test_images_of_both_splits_are_pooled_with_their_labels():
    published = load("digits")
    _, test = for_experiment(SMALL)
    members = (fold_of(torch.cat([part.labels for part in published]), 4) == 0).nonzero().flatten().tolist()
    n = len(published[0])
    assert members[0] < n <= members[-1]
    for i, sample in enumerate(members):
        source, at = (published[0], sample) if sample < n else (published[1], sample - n)
        assert test.labels[i] == source.labels[at]
        assert torch.equal(test.picture(i), source.picture(at))


def test_recordings_of_both_splits_are_pooled(tmp_path, monkeypatch):
    import platformdirs

    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name, **_: tmp_path / "cache")
    write_set(tmp_path / "n-mnist", 30, 6)
    e = Experiment.of(name="x", dataset="n-mnist", network="34x34x2-3", step_ms=10.0, shift=1)
    published = for_experiment(e, tmp_path)
    train, test = for_experiment(e.replace(folds=2, fold=1), tmp_path)
    assert len(train) == len(test) == 18
    labels = torch.cat([part.labels for part in published])
    members = (fold_of(labels, 2) == 1).nonzero().flatten()
    for i, sample in enumerate(members.tolist()):
        source, at = (published[0], sample) if sample < 30 else (published[1], sample - 30)
        assert test.labels[i] == source.labels[at]
        seen, expected = (dense(part.samples, torch.tensor([k]), e, 0) for part, k in ((test, i), (source, at)))
        assert torch.equal(seen, expected)


def test_the_result_is_that_of_its_folds(done):
    folder, result = done
    assert json.loads((folder / FILE).read_text()) == result
    assert (result["folds"], result["samples"], result["seeds"]) == (4, 1797, [0])
    assert result["command"].startswith("stbp crossvalidate digits-mlp --network 64-20-10")
    assert result["command"].endswith("--folds 4")
    right = 0
    for fold in range(4):
        confusion = evaluate(folder / str(fold)).confusion
        samples = int(confusion.sum())
        assert samples == (450 if fold == 0 else 449)
        right += int(confusion.diagonal().sum())
        assert result["test_accuracy"][fold] == pytest.approx(int(confusion.diagonal().sum()) / samples)
    assert result["pooled_accuracy"] == pytest.approx(right / 1797, rel=1e-12)
    assert result["pooled_accuracy"] > 0.5
    assert results.over(result) == "4 folds, 1,797 samples"
    assert len(set(result["test_accuracy"])) > 1


def test_a_fold_is_the_run_that_train_makes(done, tmp_path):
    folder, _ = done
    run = stbp.fit(SMALL, fold=2, out=tmp_path / "one", report=Silent())
    assert (
        run.history[-1]["train_loss"]
        == json.loads((folder / "2" / "metrics.jsonl").read_text().splitlines()[-1])["train_loss"]
    )


def test_it_goes_on_where_it_was_stopped(done, tmp_path, monkeypatch):
    _, whole = done

    class Stopped(Silent):
        epochs = 0

        def end_epoch(self, metrics: dict[str, Any], epochs: int) -> None:
            self.epochs += 1
            if self.epochs == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crossvalidate(SMALL, out=tmp_path, report=Stopped())
    assert not (tmp_path / FILE).exists()
    first = (tmp_path / "0" / "summary.json").read_bytes()
    with pytest.raises(ValueError, match="already holds runs; add --resume"):
        crossvalidate(SMALL, out=tmp_path, report=Silent())
    resumed = crossvalidate(SMALL, out=tmp_path, resume=True, report=Silent())
    assert (tmp_path / "0" / "summary.json").read_bytes() == first
    assert resumed["test_accuracy"] == whole["test_accuracy"]
    losses = [[[m["train_loss"] for m in run["metrics"]] for run in result["runs"]] for result in (resumed, whole)]
    assert losses[0] == losses[1]


def test_folds_that_are_missing_or_mixed_make_no_result(done, tmp_path):
    folder, _ = done
    with pytest.raises(ValueError, match=r"each of the folds 0\.\.3 once.*got folds \[0, 2\]"):
        results.join([folder / "0", folder / "2"])
    stbp.fit(SMALL, seed=1, fold=1, out=tmp_path / "other", report=Silent())
    with pytest.raises(ValueError, match=r"all of one seed; got folds \[0, 2, 1\], seeds \[0, 1\]"):
        results.join([folder / "0", tmp_path / "other", folder / "2"])
    path = results.collect([folder / str(fold) for fold in (2, 0, 3, 1)], tmp_path)
    assert path.name.startswith("digits-mlp-4-folds-network")


def test_an_unregistered_experiment_fails_before_it_is_trained(tmp_path):
    with pytest.raises(ValueError, match="mine is not registered"):
        crossvalidate(SMALL.replace(name="mine"), out=tmp_path / "runs", report=Silent())
    assert not (tmp_path / "runs").exists()


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["stbp", *map(str, args)])
        code = main()
        out, err = capsys.readouterr()
        return code, out, err

    flags = ["--network", "64-10", "--T", 2, "--epochs", 1, "--threads", 1]
    code, out, _ = run("crossvalidate", "digits-mlp", "--folds", 2, *flags)
    assert code == 0
    result = json.loads((tmp_path / "runs/digits-mlp-seed0-2-folds" / FILE).read_text())
    assert f"test accuracy {results.accuracy(result)} %" in out
    assert f"pooled {100 * result['pooled_accuracy']:.2f} %" in out
    code, _, err = run("crossvalidate", "digits-mlp", "--folds", 2, *flags)
    assert code == 2
    assert "already holds runs; add --resume" in err
    code, out, _ = run("crossvalidate", "digits-mlp", "--folds", 2, "--resume")  # the stored fields hold
    assert code == 0
    assert f"test accuracy {results.accuracy(result)} %" in out
    code, _, err = run("crossvalidate", "digits-mlp", "--fold", 3)
    assert code == 2
    assert "stbp train --fold trains one" in err
    code, _, err = run("crossvalidate")
    assert code == 2
    assert "stbp crossvalidate needs the name of an experiment" in err


def test_the_folds_of_the_real_recordings_are_these():
    if not REAL_DATA or not (Path(REAL_DATA) / "n-mnist-1100").is_dir():
        pytest.skip("STBP_DATA names no folder with n-mnist-1100/")
    from stbp.data.events.sets import joined, load_events

    recordings = joined(*load_events(data=REAL_DATA))
    folds = fold_of(recordings.labels, 10)
    assert torch.bincount(folds).tolist() == [110] * 10
    lines = "".join(f"{name} {fold}\n" for name, fold in sorted(zip(recordings.names, folds.tolist(), strict=True)))
    digest = "75fed81ce90409ad9479604a71eb416c8b20528d7dca3e46e8dc8d79d376460f"
    assert hashlib.sha256(lines.encode()).hexdigest() == digest
