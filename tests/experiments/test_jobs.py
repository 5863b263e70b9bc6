import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import stbp
from stbp.config import Experiment
from stbp.experiments import registry
from stbp.experiments.jobs import Job, places, run_all, run_here
from stbp.train.evaluate import load_run
from stbp.train.progress import Silent

pytestmark = pytest.mark.slow

SMALL = registry.experiment("digits-mlp").replace(network="64-10", T=2, epochs=1)
DEAD = SMALL.replace(threshold=50.0, init="paper", schedule="constant", epochs=3)


class Told:
    """Remembers what a board is told."""

    def __init__(self, act=lambda job: None):
        self.act, self.begun, self.texts, self.errors = act, [], [], {}
        self.epochs: dict[Job, float] = {}

    def started(self, job: Job) -> None:
        self.begun.append(job)

    def reached(self, job: Job, epochs: float) -> None:
        self.epochs[job] = epochs
        self.act(job)

    def said(self, job: Job, text: str) -> None:
        self.texts.append(text)

    def ended(self, job: Job, error: str | None) -> None:
        self.errors[job] = error


def job(folder: Path, experiment: Experiment = SMALL, seed: int = 0) -> Job:
    return Job(experiment.replace(seed=seed), folder / f"{experiment.threshold}-{seed}")


def test_runs_end_as_if_each_had_been_alone(tmp_path: Path):
    jobs, told = [job(tmp_path, seed=seed) for seed in range(3)], Told()
    run_all(jobs, told, at=[None, None])
    assert told.errors == dict.fromkeys(jobs)
    assert told.epochs == dict.fromkeys(jobs, 1)
    torch.set_num_threads(1)
    alone = stbp.fit(SMALL, seed=2, report=Silent())
    weights = load_run(jobs[2].folder).network.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in alone.network.state_dict().items())
    assert json.loads((jobs[2].folder / "summary.json").read_text())["threads"] == 1


def test_a_run_that_fails_does_not_stop_the_others(tmp_path: Path):
    wrong, right = job(tmp_path, SMALL.replace(network="64-7", threshold=9.0)), job(tmp_path)
    told = Told()
    run_here([wrong, right], told)
    assert "ends in 7 outputs" in told.errors[wrong]
    assert told.errors[right] is None


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_a_process_that_dies_is_told_of_and_replaced(tmp_path: Path):
    long, short = job(tmp_path, SMALL.replace(epochs=10_000)), job(tmp_path, seed=1)

    def kill(at: Job) -> None:
        if at is long:
            (child,) = (int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()[-1:])
            os.kill(child, signal.SIGKILL)

    told = Told(kill)
    run_all([long, short], told, at=[None])
    assert "its process died (exit code -9)" in told.errors[long]
    assert told.errors[short] is None


def test_a_network_that_cannot_learn_stops_after_its_first_epoch_and_one_that_can_goes_on(tmp_path: Path):
    alive = DEAD.replace(threshold=0.3, init="balanced")
    jobs, told = [job(tmp_path, DEAD), job(tmp_path, alive)], Told()
    run_here(jobs, told)
    dead, alive = (json.loads((one.folder / "summary.json").read_text()) for one in jobs)
    assert (dead["epochs"], dead["cannot_learn"]) == (1, True)
    assert (alive["epochs"], alive["cannot_learn"]) == (3, False)
    assert any("no gradient can wake them" in text for text in told.texts)


def test_the_look_after_the_first_epoch_changes_nothing(tmp_path: Path):
    looked = job(tmp_path, SMALL.replace(schedule="constant", epochs=2))
    run_here([looked], Told())
    through = stbp.fit(looked.experiment, report=Silent())
    weights = load_run(looked.folder).network.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in through.network.state_dict().items())


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_ctrl_c_leaves_checkpoints_from_which_the_same_call_goes_on(tmp_path: Path):
    slow = SMALL.replace(network="64-200-10", T=30, batch_size=1, epochs=100)  # stopped within the first epoch
    long = [job(tmp_path, slow, seed=seed) for seed in (0, 1)]
    seen = set()

    def interrupt(at: Job) -> None:
        seen.add(at)
        if len(seen) == 2:
            seen.add("done")
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_all(long, Told(interrupt), at=[None, None])
    for one in long:
        assert (one.folder / "checkpoint.safetensors").exists()
        assert not (one.folder / "summary.json").exists()
    told = Told(
        lambda at: os.kill(os.getpid(), signal.SIGINT) if "again" not in seen and not seen.add("again") else None
    )
    with pytest.raises(KeyboardInterrupt):
        run_here(long[:1], told)
    assert any("going on with" in text for text in told.texts)


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_no_process_outlives_a_parent_that_is_killed(tmp_path: Path):
    code = f"""
from pathlib import Path
from types import SimpleNamespace
from stbp.experiments import registry
from stbp.experiments.jobs import Job, run_all
if __name__ == "__main__":
    e = registry.experiment("digits-mlp").replace(network="64-10", T=2, epochs=100_000)
    nothing = lambda *told: None
    board = SimpleNamespace(started=nothing, said=nothing, reached=lambda *told: print("on", flush=True), ended=nothing)
    run_all([Job(e, Path({str(tmp_path)!r}) / "run")], board, at=[None])
"""
    (tmp_path / "parent.py").write_text(code)
    root = Path(stbp.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as parent:
        timer = threading.Timer(60, parent.kill)
        timer.start()
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"on\n"
        timer.cancel()
        children = [int(pid) for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
        parent.kill()
    deadline = time.monotonic() + 20
    while any(_lives(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(children) >= 1
    assert not any(_lives(child) for child in children)


def _lives(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] not in "ZX"


def test_places_are_cores_or_gpus(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert places("auto", 3) == [None] * 3
    assert 1 <= len(places("cpu")) <= (os.cpu_count() or 1)
    with pytest.raises(ValueError, match="jobs must be at least 1; got 0"):
        places("auto", 0)
    with pytest.raises(ValueError, match="no CUDA device"):
        places("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert places("auto") == ["0", "1"]
    assert places("auto", 3) == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert places("auto") == ["5", "7"]
    assert places("cpu", 1) == [None]
