"""Many runs at once: a process of one thread for each, as many as there are cores or GPUs."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
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


@runtime_checkable
class Board(Protocol):
    """Who is told of the runs while they go on."""

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
    """Train every run in a process of its own, as many at once as there are places; one that fails stops no other.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after every run has written a checkpoint; on a second one at once.
    """
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    waiting, free = list(jobs)[::-1], list(at)[::-1]
    running: dict[Any, tuple[Job, str | None, SpawnProcess]] = {}  # by the end of a pipe
    try:
        with stop_requests(lambda text: None) as stop:
            while not stop() and (waiting or running):
                while waiting and free:
                    job, place = waiting.pop(), free.pop()
                    ours, theirs = context.Pipe(duplex=False)
                    process = context.Process(target=_work, args=(theirs, job, place, data, device), daemon=True)
                    process.start()
                    theirs.close()
                    running[ours] = job, place, process
                    board.started(job)
                ready: list[Any] = wait(list(running), POLL_SECONDS)
                for connection in ready:
                    job, place, process = running[connection]
                    try:
                        told, value = connection.recv()
                    except (EOFError, ConnectionResetError):
                        process.join()
                        told, value = "ended", f"its process died (exit code {process.exitcode}); out of memory?"
                    if told == "ended":
                        del running[connection]
                        free.append(place)
                    getattr(board, told)(job, value)
            for _, _, process in running.values():
                process.terminate()
            for _, _, process in running.values():
                process.join()
            if stop():
                raise KeyboardInterrupt
    finally:
        for _, _, process in running.values():
            process.kill()


def run_here(jobs: Iterable[Job], board: Board, *, data: Path | None = None, device: str = "auto") -> None:
    """Train every run in this process, with one thread, one after the other: for runs shorter than a process's start.

    Raises:
        KeyboardInterrupt: as from `fit`.
    """
    import torch

    torch.set_num_threads(1)
    for job in jobs:
        board.started(job)
        tell = lambda told, value, job=job: getattr(board, told)(job, value)  # noqa: E731
        tell("ended", _train(job, _Wire(tell), data, device))


def _work(connection: Connection, job: Job, gpu: str | None, data: Path | None, device: str) -> None:
    """Train a run, and send `(method of the board, its argument)` for all that is to be told, the end last."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # a terminal's Ctrl-C goes to the parent alone, which asks once for a checkpoint
    if gpu is not None:
        os.environ[GPUS] = gpu
    import torch

    torch.set_num_threads(1)
    keep_freed_memory()
    with suppress(BrokenPipeError, KeyboardInterrupt):  # the parent has gone, or wants an end
        tell = lambda told, value: connection.send((told, value))  # noqa: E731
        tell("ended", _train(job, _Wire(tell), data, device))


def _train(job: Job, wire: "_Wire", data: Path | None, device: str) -> str | None:
    """Train a run; return why it has no end, None if it has."""
    try:
        _fit(job, wire, data, device)
    except BrokenPipeError:
        raise
    except Exception as error:
        expected = isinstance(error, ValueError | OSError)
        return ("" if expected else f"{type(error).__name__}: ") + " ".join(str(error).split())
    return None


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
    """True if the health at the end of a run was such that no gradient enters the network."""
    return summary.get("cannot_learn", False)  # summaries of older versions do not say


class _Wire:
    """Passes on what `fit` tells."""

    def __init__(self, tell: Callable[[str, Any], None]):
        self.tell, self.finished, self.samples = tell, 0, 1

    def say(self, text: str) -> None:
        self.tell("said", text)

    def start_epoch(self, epoch: int, epochs: int, samples: int, done: int) -> None:
        self.finished, self.samples = epoch - 1, samples

    def advance(self, done: int, loss: float, accuracy: float) -> None:
        self.tell("reached", self.finished + done / self.samples)

    def end_epoch(self, metrics: dict[str, Any], epochs: int) -> None:
        self.tell("reached", float(metrics["epoch"]))

    def close(self) -> None:
        pass
