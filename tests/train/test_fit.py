import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import stbp
from stbp import nn
from stbp.data.dataset import Windows
from stbp.experiments import registry
from stbp.experiments import results as report
from stbp.train import checkpoint, fit, runs, source
from stbp.train.epoch import DivergedError
from stbp.train.evaluate import Run
from stbp.train.optimizer import optimizer
from stbp.train.progress import Silent, stop_requests

SMALL = registry.experiments()["digits-mlp"].replace(network="64-16-10", T=4, epochs=3, learning_rate=1e-2)


class Listener(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def weights(run: Run) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in run.network.state_dict().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def uninterrupted() -> Run:
    torch.set_num_threads(1)
    return stbp.fit(SMALL, report=Silent())


AVERAGED = SMALL.replace(average=0.9, shift=1, elastic=0.5, drop=0.1)


@pytest.fixture(scope="module")
def averaged() -> Run:
    torch.set_num_threads(1)
    return stbp.fit(AVERAGED, report=Silent())


def test_it_learns(uninterrupted):
    assert uninterrupted.test_accuracy > 0.7  # 16 hidden neurons, 4 steps, 3 epochs; chance is 0.1
    losses = [metrics["train_loss"] for metrics in uninterrupted.history]
    assert losses == sorted(losses, reverse=True)


def test_the_same_seed_gives_the_same_weights_and_another_one_does_not(uninterrupted):
    again = stbp.fit(SMALL, report=Silent())
    assert equal(weights(again), weights(uninterrupted))
    timeless = [{k: v for k, v in m.items() if "second" not in k} for m in again.history]
    assert timeless == [{k: v for k, v in m.items() if "second" not in k} for m in uninterrupted.history]
    assert not equal(
        weights(stbp.fit(SMALL, seed=1, epochs=1, report=Silent())), weights(stbp.fit(SMALL, epochs=1, report=Silent()))
    )


def test_every_epoch_sees_every_training_sample_once_in_an_order_of_its_own(monkeypatch: pytest.MonkeyPatch):
    seen: dict[int, list[int]] = {}
    window = Windows.window

    def listening(samples, ids, epoch, device):
        seen.setdefault(epoch, []).extend(ids.tolist())
        return window(samples, ids, epoch, device)

    monkeypatch.setattr(Windows, "window", listening)
    stbp.fit(SMALL, epochs=2, validation=400, report=Silent())
    first, second = seen[1], seen[2]
    assert len(first) == len(set(first)) == 1437 - 400
    assert sorted(first) == sorted(second)
    assert first != second
    assert first != sorted(first)


def test_a_run_folder_holds_what_the_contract_says(tmp_path: Path):
    run = stbp.fit(SMALL, out=tmp_path / "run", report=Silent())
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.json", "metrics.jsonl", "checkpoint.safetensors", "summary.json"}
    assert stbp.Experiment.of(**json.loads((tmp_path / "run/config.json").read_text())) == SMALL
    metrics = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert metrics == run.history
    assert [m["epoch"] for m in metrics] == [1, 2, 3]
    results = {"train_loss", "train_accuracy", "validation_accuracy", "test_accuracy", "firing_rate"}
    assert set(metrics[0]) == {"epoch", "seconds", "samples_per_second"} | results
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary == run.summary
    assert {
        "experiment", "test_accuracy", "epochs", "seed", "seconds", "peak_memory_mib", "versions", "commit", "kernels"
    } <= set(summary)  # fmt: skip
    assert str(tmp_path) not in (tmp_path / "run/config.json").read_text() + json.dumps(summary)


def test_a_run_read_back_is_the_run(tmp_path: Path):
    run = stbp.fit(SMALL, epochs=1, out=tmp_path, report=Silent())
    loaded = stbp.load_run(tmp_path)
    assert equal(weights(loaded), weights(run))
    assert loaded.summary == run.summary
    assert loaded.shape == (1, 8, 8)
    evaluation = stbp.evaluate(loaded)
    assert evaluation.accuracy == run.test_accuracy
    assert evaluation.confusion.sum(1).tolist() == [36] * 10


def stop_after(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """The loop's question whether to stop gets yes as answer from call `calls` on."""

    @contextlib.contextmanager
    def requests(say):
        count = 0

        def stop() -> bool:
            nonlocal count
            count += 1
            return count > calls

        yield stop

    monkeypatch.setattr(fit, "stop_requests", requests)


def stopped_and_resumed(experiment: stbp.Experiment, calls: int, out: Path, monkeypatch: pytest.MonkeyPatch):
    stop_after(monkeypatch, calls)
    with pytest.raises(KeyboardInterrupt):
        stbp.fit(experiment, out=out, report=Silent())
    monkeypatch.setattr(fit, "stop_requests", stop_requests)
    return stbp.fit(experiment, out=out, resume=True, report=Silent())


@pytest.mark.parametrize("calls", [0, 1, 17, 28, 29, 30, 31, 32, 33, 34, 40, 75])
def test_stopped_at_any_question_and_resumed_it_is_as_if_never_stopped(calls, uninterrupted, tmp_path, monkeypatch):
    """29 steps an epoch, then questions inside the evaluation, then the next epoch."""
    assert source.BATCH == 200
    run = stopped_and_resumed(SMALL, calls, tmp_path / "run", monkeypatch)
    assert equal(weights(run), weights(uninterrupted))
    keys = ("epoch", "train_loss", "train_accuracy", "test_accuracy", "firing_rate")
    assert [[m[k] for k in keys] for m in run.history] == [[m[k] for k in keys] for m in uninterrupted.history]
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


@pytest.mark.parametrize("calls", [0, 1, 17, 29, 31, 34, 75])
def test_averaged_weights_and_changed_images_resume_bit_for_bit(calls, averaged, tmp_path, monkeypatch):
    run = stopped_and_resumed(AVERAGED, calls, tmp_path / "run", monkeypatch)
    assert equal(weights(run), weights(averaged))
    assert equal(weights(stbp.load_run(tmp_path / "run")), weights(averaged))
    assert [m["test_accuracy"] for m in run.history] == [m["test_accuracy"] for m in averaged.history]


def test_what_is_evaluated_and_kept_is_the_mean_of_the_weights_after_every_step(tmp_path, monkeypatch):
    steps: list[list[Tensor]] = []
    judged: list[list[Tensor]] = []
    optimize, label = torch.optim.Adam.step, fit.predictions

    def optimizing(self, *args, **kwargs):
        result = optimize(self, *args, **kwargs)
        steps.append([p.detach().double() for p in self.param_groups[0]["params"]])
        return result

    def labelling(net, *args):
        judged.append([p.detach().clone() for p in net.parameters()])
        return label(net, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", optimizing)
    monkeypatch.setattr(fit, "predictions", labelling)
    e = SMALL.replace(average=0.9, epochs=2)
    run = stbp.fit(e, out=tmp_path, report=Silent())
    assert len(steps) == 2 * 29
    for seen, found in ((steps[:29], judged[0]), (steps, judged[-1]), (steps, list(run.network.parameters()))):
        shares = 0.9 ** torch.arange(len(seen) - 1, -1, -1, dtype=torch.float64)
        for index, weight in enumerate(found):
            mean = torch.stack(
                [share * step[index] for share, step in zip(shares / shares.sum(), seen, strict=True)]
            ).sum(0)
            assert torch.allclose(weight.detach().double(), mean, atol=1e-6)
    live = checkpoint.load(tmp_path / checkpoint.FILE).part("live")
    monkeypatch.undo()
    assert equal(live, weights(stbp.fit(e, average=None, report=Silent())))
    assert stbp.evaluate(tmp_path).accuracy == run.test_accuracy


@pytest.mark.slow
def test_a_rate_penalty_makes_hidden_neurons_fire_less_and_is_in_the_loss():
    quiet, loud = (stbp.fit(SMALL, rate_penalty=weight, report=Silent()) for weight in (0.1, 1e-9))
    assert quiet.history[-1]["firing_rate"][0] < 0.8 * loud.history[-1]["firing_rate"][0]
    assert quiet.test_accuracy > 0.5
    with pytest.raises(ValueError, match="rate_penalty has no effect on a network without hidden neurons"):
        stbp.fit(SMALL, network="64-10", rate_penalty=1.0, report=Silent())


def test_ctrl_c_writes_a_checkpoint_in_the_middle_of_an_epoch(uninterrupted, tmp_path: Path, monkeypatch):
    class Interrupting(Listener):
        def advance(self, done: int, loss: float, accuracy: float) -> None:
            if done == 11 * SMALL.batch_size:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(fit, "REPORT_SECONDS", 0)
    listener = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        stbp.fit(SMALL, out=tmp_path / "run", report=listener)
    assert any("stopping after this step" in text for text in listener.said)
    assert checkpoint.load(tmp_path / "run/checkpoint.safetensors").header["progress"]["step"] == 11
    assert equal(weights(stbp.fit(SMALL, out=tmp_path / "run", resume=True, report=Silent())), weights(uninterrupted))


@pytest.mark.parametrize(
    "fields",
    [
        {
            "optimizer": "sgd",
            "momentum": 0.9,
            "learning_rate": 0.2,
            "schedule": "step",
            "step_epochs": 1,
            "step_factor": 0.5,
        },
        {"weight_decay": 0.3, "average": 0.9},
    ],
)
def test_every_optimizer_and_schedule_resumes_bit_for_bit(fields: dict[str, Any], tmp_path: Path, monkeypatch):
    changed = SMALL.replace(epochs=2, validation=100, **fields)
    whole = stbp.fit(changed, report=Silent())
    stop_after(monkeypatch, 10)
    with pytest.raises(KeyboardInterrupt):
        stbp.fit(changed, out=tmp_path / "run", report=Silent())
    monkeypatch.setattr(fit, "stop_requests", stop_requests)
    assert equal(weights(stbp.fit(changed, out=tmp_path / "run", resume=True, report=Silent())), weights(whole))


def test_weights_decay_by_their_share_of_the_learning_rate_beside_adams_step():
    net = nn.build("3-4-2")
    before = [p.detach().clone() for p in net.parameters()]
    decaying = optimizer(SMALL.replace(weight_decay=0.5, learning_rate=0.1).training.optimisation, net, None)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    decaying.step()
    for p, start in zip(net.parameters(), before, strict=True):
        torch.testing.assert_close(p.detach(), start * (1 - 0.5 * 0.1))


SCRIPT = """
import sys, stbp
from stbp.train.progress import Silent
import torch
torch.set_num_threads(1)
small = dict(network="64-16-10", T=4, epochs=3, learning_rate=1e-2)
stbp.fit("digits-mlp", out=sys.argv[1], resume=True, report=Silent(), **small)
"""


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_it_is_as_if_never_killed(uninterrupted, tmp_path: Path):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "run")]
    chance = random.Random(0)
    kills = 0
    while kills < 3 and not (tmp_path / "run/summary.json").exists():
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not (tmp_path / "run/config.json").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.4) if kills == 0 else chance.uniform(1.0, 2.5))
        process.kill()
        process.wait()
        kills += 1
    subprocess.run(command, check=True)
    assert equal(weights(stbp.load_run(tmp_path / "run")), weights(uninterrupted))


def test_a_folder_with_a_run_is_an_error_that_names_resume(tmp_path: Path):
    stbp.fit(SMALL, epochs=1, out=tmp_path, report=Silent())
    with pytest.raises(ValueError, match="already holds a run; add --resume"):
        stbp.fit(SMALL, epochs=1, out=tmp_path, report=Silent())
    with pytest.raises(ValueError, match="its T is 4, not 5"):
        stbp.fit(SMALL, T=5, epochs=1, out=tmp_path, resume=True, report=Silent())
    with pytest.raises(ValueError, match="its epochs is 1, not 2"):
        stbp.fit(SMALL, epochs=2, out=tmp_path, resume=True, report=Silent())


def test_a_finished_run_that_is_resumed_keeps_its_summary(tmp_path: Path):
    stbp.fit(SMALL, epochs=1, out=tmp_path, report=Silent())
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "commit": "of that day"}))
    assert stbp.fit(SMALL, epochs=1, out=tmp_path, resume=True, report=Silent()).summary["commit"] == "of that day"
    assert json.loads(path.read_text())["commit"] == "of that day"


def test_an_early_stopped_run_that_is_resumed_keeps_its_summary(tmp_path: Path):
    patient = SMALL.replace(validation=300, patience=1, epochs=40, learning_rate=1e-9)
    stbp.fit(patient, out=tmp_path, report=Silent())
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "commit": "of that day"}))
    listener = Listener()
    assert stbp.fit(patient, out=tmp_path, resume=True, report=listener).summary["commit"] == "of that day"
    assert any("is complete" in text for text in listener.said)


def test_a_kill_between_checkpoint_and_metrics_is_mended(tmp_path: Path):
    stbp.fit(SMALL, epochs=2, out=tmp_path, report=Silent())
    (tmp_path / "summary.json").unlink()
    path = tmp_path / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole.splitlines()[0] + "\n")
    stbp.fit(SMALL, epochs=2, out=tmp_path, resume=True, report=Silent())
    assert path.read_text() == whole


def test_an_epoch_is_saved_before_it_is_told(tmp_path: Path):
    class Failing(Silent):
        def end_epoch(self, metrics, epochs):
            raise SystemExit(1)

    with pytest.raises(SystemExit):
        stbp.fit(SMALL, out=tmp_path, report=Failing())
    assert checkpoint.load(tmp_path / "checkpoint.safetensors").header["progress"]["epoch"] == 1


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_training_goes_on_when_nobody_reads_what_it_tells(tmp_path: Path, uninterrupted):
    command = [sys.executable, "-c", SCRIPT.replace(", report=Silent()", ""), str(tmp_path / "run")]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.close()
        assert process.wait() == 0
    assert equal(weights(stbp.load_run(tmp_path / "run")), weights(uninterrupted))


def test_a_run_made_longer_and_stopped_has_no_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    constant = SMALL.replace(schedule="constant")
    stbp.fit(constant, epochs=1, out=tmp_path, report=Silent())
    stop_after(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        stbp.fit(constant, epochs=3, out=tmp_path, resume=True, report=Silent())
    assert not (tmp_path / "summary.json").exists()
    with pytest.raises(ValueError, match="no finished run"):
        report.collect([tmp_path], tmp_path)


def test_a_config_that_was_changed_behind_the_checkpoint_is_noticed(tmp_path: Path):
    stbp.fit(SMALL, epochs=1, out=tmp_path, report=Silent())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "T": 30}))
    with pytest.raises(ValueError, match="is of a run with T 4, config"):
        stbp.load_run(tmp_path)


def test_a_run_from_before_a_field_existed_is_read_with_its_default(tmp_path: Path):
    stbp.fit(SMALL, epochs=1, out=tmp_path, report=Silent())
    config = json.loads((tmp_path / "config.json").read_text())
    saved = checkpoint.load(tmp_path / checkpoint.FILE)
    for fields in (config, saved.header["experiment"]):
        del fields["neuron"], fields["drop"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint.save(tmp_path / checkpoint.FILE, saved)
    assert stbp.load_run(tmp_path).experiment == SMALL.replace(epochs=1)


OLD = Path(__file__).parent / "run_of_8bf525b"  # two epochs, when settings were flat and kernels strings


def test_a_run_begun_by_an_older_version_is_read_and_goes_on(tmp_path: Path):
    shutil.copytree(OLD, tmp_path / "run")
    before = stbp.load_run(tmp_path / "run")
    assert stbp.evaluate(before).accuracy == pytest.approx(before.test_accuracy, abs=0.03)
    listener, longer = Listener(), before.experiment.replace(epochs=4)
    run = stbp.fit(longer, out=tmp_path / "run", resume=True, report=listener)
    assert any("at epoch 3, step 1" in text for text in listener.said)
    assert run.history[:2] == before.history
    whole = stbp.fit(longer, report=Silent())  # on another machine sums may round differently
    for a, b in zip(run.network.parameters(), whole.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.05)
    assert not equal(weights(run), weights(before))


def test_resume_without_a_folder_is_an_error():
    with pytest.raises(ValueError, match="resume has no effect without out"):
        stbp.fit(SMALL, resume=True, report=Silent())


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file is a file; name another folder"):
        stbp.fit(SMALL, out=tmp_path / "file", report=Silent())


def test_with_a_schedule_that_allows_it_a_run_can_be_made_longer(tmp_path: Path):
    constant = SMALL.replace(schedule="constant")
    stbp.fit(constant, epochs=1, out=tmp_path, report=Silent())
    longer = stbp.fit(constant, epochs=2, out=tmp_path, resume=True, report=Silent())
    assert equal(weights(longer), weights(stbp.fit(constant, epochs=2, report=Silent())))


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path: Path, unchecked_shapes):
    changes = [
        ("network", "65-10", "65-10"),
        ("network", "64-9", "64-9"),
        ("network", "64-12", "64-12"),
        ("network", "64-x", "64-x"),
    ]
    for field, value, message in [*changes, ("validation", 1437, "validation must leave samples")]:
        with pytest.raises(ValueError, match=message):
            stbp.fit(SMALL.replace(**{field: value}), out=tmp_path / "run", report=Silent())
    assert list(tmp_path.iterdir()) == []


def test_divergence_names_layer_and_step():
    with pytest.raises(DivergedError, match=r"epoch 1, step 1: the weight of layer 0 \(Linear 64-16\) is not finite"):
        stbp.fit(SMALL, learning_rate=1e30, report=Silent())


def test_health_speaks_at_the_first_batch_and_in_the_summary():
    """The paper's silent setting: threshold 1.5, tau 0.1, unit rows, rectangle of width 1."""
    listener = Listener()
    run = stbp.fit(SMALL, epochs=1, threshold=1.5, decay=0.1, init="paper", report=listener)
    assert any(text.startswith("health: layer 3") and "never fired" in text for text in listener.said)
    assert any("never fired" in text for text in run.summary["health"])
    assert run.test_accuracy < 0.2


def test_early_stopping_watches_validation_accuracy_alone():
    run = stbp.fit(SMALL, validation=300, patience=2, epochs=40, learning_rate=1e-9, report=Silent())
    assert len(run.history) == 3
    assert run.history[0]["validation_accuracy"] is not None


def test_static_encoding_cross_entropy_and_convolution_train(tmp_path: Path):
    run = stbp.fit(
        SMALL, network="8x8-4C3-P2-10", encoding="static", loss="cross_entropy", epochs=2, out=tmp_path, report=Silent()
    )
    assert run.test_accuracy > 0.5
    assert stbp.evaluate(tmp_path).accuracy == run.test_accuracy


def test_an_unknown_device_is_named():
    with pytest.raises(ValueError, match="device must be auto, cpu or cuda"):
        stbp.fit(SMALL, device="tpu", report=Silent())


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("STBP_DATA"), reason="needs STBP_DATA with mnist/")
def test_real_mnist_is_learnt_in_one_small_epoch():
    run = stbp.fit(
        "mnist-mlp-400", T=4, network="784-50-10", batch_size=300, learning_rate=5e-3, epochs=1, report=Silent()
    )
    assert run.test_accuracy > 0.88


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_the_commit_is_marked_where_the_package_differs_and_nowhere_else(tmp_path: Path, monkeypatch):
    package = tmp_path / "stbp" / "train"
    package.mkdir(parents=True)
    (package / "runs.py").write_text("")
    (tmp_path / "README.md").write_text("")
    monkeypatch.setattr(runs, "__file__", str(package / "runs.py"))
    assert runs.commit() is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    commit = runs.commit()
    assert commit is not None
    assert re.fullmatch("[0-9a-f]{12,}", commit)
    (tmp_path / "README.md").write_text("other")
    assert runs.commit() == commit
    (package / "runs.py").write_text("other")
    assert runs.commit() == f"{commit}+"
