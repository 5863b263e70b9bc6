"""Many runs at once: a process of one thread for each core, or for each GPU, that trains one run after the other."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from stbp.config import FILELESS, Experiment
from stbp.train.allocator import keep_freed_memory
from stbp.train.progress import stop_requests

POLL_SECONDS = 0.2
GPUS = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Job:
    """A run: its experiment, with seed and fold, and its folder, which may hold a part of it."""

    experiment: Experiment
    folder: Path


@dataclass(frozen=True)
class Said:
    """A line that a run tells its user."""

    text: str


@dataclass(frozen=True)
class Reached:
    """How many epochs of a run are done, and a fraction of the next."""

    epochs: float


@dataclass(frozen=True)
class Done:
    """The end of a run, or why there was none."""

    error: str | None = None


Message = Said | Reached | Done


@runtime_checkable
class Board(Protocol):
    """What is told of the runs while they go on."""

    def started(self, job: Job) -> None: ...
    def reached(self, job: Job, epochs: float) -> None: ...
    def said(self, job: Job, text: str) -> None: ...
    def ended(self, job: Job, error: str | None) -> None: ...


def places(device: str, jobs: int | None = None) -> list[str | None]:
    """Where runs go at once: for each a GPU as `CUDA_VISIBLE_DEVICES` names it, or None for a core.

    Args:
        device: `auto`, `cpu` or `cuda`.
        jobs: how many; by default as many as there are GPUs, or cores that this process may use.

    Raises:
        ValueError: `jobs` is less than 1, or `device` is not to be had.
    """
    from stbp.train.evaluate import device_called

    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs must be at least 1; got {jobs}")
    if device_called(device).type == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return [None] * (jobs or cores)
    import torch

    given = os.environ.get(GPUS)
    gpus = given.split(",") if given else [str(index) for index in range(torch.cuda.device_count())]
    return [gpus[index % len(gpus)] for index in range(jobs or len(gpus))]


def run_all(
    jobs: Iterable[Job], board: Board, *, at: Sequence[str | None], data: Path | None = None, device: str = "auto"
) -> None:
    """Train every run to its end, as many at once as there are places; one that fails does not stop the others.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after every run has written a checkpoint; on a second one at once.
    """
    waiting = list(jobs)[::-1]
    workers = [_Worker(place, data, device) for place in at[: len(waiting)]]
    try:
        with stop_requests(lambda text: None) as stop:
            while not stop() and (waiting or any(worker.job for worker in workers)):
                for index, worker in enumerate(workers):
                    if worker.job is not None and not worker.hear(worker.job, board):
                        worker = workers[index] = _Worker(worker.place, data, device)  # the process is gone
                    if worker.job is None and waiting:
                        worker.start(waiting.pop(), board)
                wait([worker.connection for worker in workers if worker.job], POLL_SECONDS)
            stopped = stop()
            for worker in workers:
                worker.end(interrupt=stopped)
            for worker in workers:
                worker.process.join()
        if stopped:
            raise KeyboardInterrupt
    finally:
        for worker in workers:
            worker.process.kill()


def run_here(jobs: Iterable[Job], board: Board, *, data: Path | None = None, device: str = "auto") -> None:
    """Train every run in this process, with one thread, one after the other: for runs shorter than a process's start.

    Raises:
        KeyboardInterrupt: as from `fit`.
    """
    import torch

    torch.set_num_threads(1)
    for job in jobs:
        board.started(job)
        tell = partial(_pass_on, board, job)
        tell(_train(job, _Wire(tell), data, device))


def _pass_on(board: Board, job: Job, message: Message) -> None:
    match message:
        case Said(text):
            board.said(job, text)
        case Reached(epochs):
            board.reached(job, epochs)
        case Done(error):
            board.ended(job, error)


class _Worker:
    """A process, the run that it is at, and the line to it."""

    def __init__(self, place: str | None, data: Path | None, device: str):
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        self.connection, theirs = context.Pipe()
        self.place = place
        self.job: Job | None = None
        self.process = context.Process(target=_work, args=(theirs, place, data, device), daemon=True)
        self.process.start()
        theirs.close()

    def start(self, job: Job, board: Board) -> None:
        self.job = job
        self.connection.send(job)
        board.started(job)

    def hear(self, job: Job, board: Board) -> bool:
        """Pass on what the process has said of its run; False if it has died, which ends the run."""
        try:
            while self.job is not None and self.connection.poll():
                message: Message = self.connection.recv()
                if isinstance(message, Done):
                    self.job = None
                _pass_on(board, job, message)
        except (EOFError, ConnectionResetError):
            self.process.join()
            board.ended(job, f"its process died (exit code {self.process.exitcode}); out of memory?")
            return False
        return True

    def end(self, interrupt: bool) -> None:
        """Let the process go: at the end of its run, or after a checkpoint."""
        if interrupt:
            self.process.terminate()
        else:
            with suppress(BrokenPipeError):
                self.connection.send(None)


def _work(connection: Connection, gpu: str | None, data: Path | None, device: str) -> None:
    """The process: train what comes until None comes."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # a terminal's Ctrl-C goes to the parent alone, which asks once for a checkpoint
    if gpu is not None:
        os.environ[GPUS] = gpu
    import torch

    torch.set_num_threads(1)
    keep_freed_memory()
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):  # the parent has gone, or wants an end
        while (job := connection.recv()) is not None:
            connection.send(_train(job, _Wire(connection.send), data, device))


def _train(job: Job, wire: "_Wire", data: Path | None, device: str) -> Done:
    try:
        _fit(job, wire, data, device)
    except BrokenPipeError:
        raise
    except Exception as error:
        expected = isinstance(error, ValueError | OSError)
        return Done(("" if expected else f"{type(error).__name__}: ") + " ".join(str(error).split()))
    return Done()


def _fit(job: Job, wire: "_Wire", data: Path | None, device: str) -> None:
    """Train a run, or go on with it; where its schedule allows it to grow, look after its first epoch whether to."""
    from stbp.experiments.run import fit
    from stbp.train import runs

    config, wanted = job.folder / "config.json", job.experiment
    data = None if wanted.dataset in FILELESS else data
    if wanted.epochs > 1 and wanted.schedule != "cosine":
        begun = config.exists() and runs.read_config(job.folder).epochs > 1
        first = wanted.replace(epochs=1)
        if not begun and cannot_learn(
            fit(first, data=data, out=job.folder, resume=config.exists(), device=device, report=wire).summary
        ):
            return
    fit(wanted, data=data, out=job.folder, resume=config.exists(), device=device, report=wire)


def cannot_learn(summary: dict[str, Any]) -> bool:
    """Whether the health at the end of a run was such that no gradient enters the network."""
    return summary.get("cannot_learn", False)  # summaries of older versions do not say


class _Wire:
    """Passes on what `fit` tells."""

    def __init__(self, tell: Callable[[Message], None]):
        self.tell, self.finished, self.samples = tell, 0, 1

    def say(self, text: str) -> None:
        self.tell(Said(text))

    def start_epoch(self, epoch: int, epochs: int, samples: int, done: int) -> None:
        self.finished, self.samples = epoch - 1, samples

    def advance(self, done: int, loss: float, accuracy: float) -> None:
        self.tell(Reached(self.finished + done / self.samples))

    def end_epoch(self, metrics: dict[str, Any], epochs: int) -> None:
        self.tell(Reached(float(metrics["epoch"])))

    def close(self) -> None:
        pass
