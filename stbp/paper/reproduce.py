"""`stbp reproduce`: run what the paper's tables and figures lack, collect it into results, show it beside the paper."""

import datetime
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from stbp.config import Experiment
from stbp.experiments import results as report
from stbp.experiments.jobs import Job, cannot_learn, run_all, run_here
from stbp.files import write_json
from stbp.paper import study
from stbp.paper.comparison import StandIn, find, find_stopped
from stbp.paper.tables import Figure, Table, parts

SEEDS = {"paper": 1, "tuned": 5}  # unless the caller says how many


def wanted(
    groups: Sequence[Table | Figure], seeds: int | None, stand_in: StandIn = lambda e: e
) -> dict[Experiment, int]:
    """Every experiment of the groups once, with its number of seeds; folds take the place of seeds."""
    found: dict[Experiment, int] = {}
    for group in groups:
        for part in parts(group):
            for preset, experiments in (("paper", part.paper), ("tuned", part.tuned)):
                for experiment in map(stand_in, experiments):
                    number = SEEDS[preset] if seeds is None else seeds
                    found[experiment] = max(number, found.get(experiment, 0))
    return found


class Plan:
    """Plan of what is wanted, what is there, and what is left to run.

    Attributes:
        failures: why runs have no end, by the name of their experiment.
    """

    def __init__(
        self, wanted: Mapping[Experiment, int], out: Path, published: Path | None, studied: Sequence[Experiment] = ()
    ):
        """
        Args:
            wanted: experiments, with a number of seeds each.
            out: folder for the folders of runs.
            published: the folder for results of a commit, None to leave it alone.
            studied: experiments whose trained network itself is wanted, to be measured.
        """
        self.wanted = {**dict.fromkeys(studied, 1), **wanted}
        self.out, self.published, self.studied = out, published, studied
        self.local = out / "results"
        self.failures: dict[str, list[str]] = {}

    def results(self) -> list[dict[str, Any]]:
        """All that is there, of tables and of their variants."""
        return [
            result for folder in self._folders() for part in (folder, folder / "variants") for result in _read(part)
        ]

    def _folders(self) -> list[Path]:
        return [self.local, *([] if self.published is None else [self.published])]

    def jobs(self) -> list[Job]:
        """The runs that are missing or unfinished; those that are finished but not collected are collected first."""
        for experiment in self.wanted:
            self.collect(experiment)
        known = self.results()
        runs = [run for experiment, seeds in self.wanted.items() for run in self._missing(experiment, seeds, known)]
        runs += [e for e in self.studied if e not in runs and self.study(e) is None]
        jobs = [Job(run, folder_of(run, self.out)) for run in runs]
        return [job for job in jobs if not _is_finished(job.folder, job.experiment)]

    def study(self, experiment: Experiment) -> dict[str, Any] | None:
        """Measurements of the experiment's trained network; None where there are none."""
        return study.read(experiment, self._folders())

    def measure(self, data: Path | None, device: str) -> list[Path]:
        """Measure the networks that are trained and were not measured; return the files that are written."""
        written = []
        for e in self.studied:
            folder = folder_of(e, self.out)
            if self.study(e) is None and _is_finished(folder, e):
                found = study.measure(folder, data, device)
                written.append(study.path(e, self._folder_for([found["trained_at"], found["commit"]])))
                written[-1].parent.mkdir(parents=True, exist_ok=True)
                write_json(written[-1], found)
        return written

    def _missing(self, experiment: Experiment, seeds: int, known: Sequence[dict[str, Any]]) -> list[Experiment]:
        """Its runs that no result holds."""
        there = [r for r in (find(known, experiment), find_stopped(known, experiment)) if r is not None]
        if experiment.folds is not None:
            return [] if there or not seeds else [experiment.replace(fold=fold) for fold in range(experiment.folds)]
        present = {seed for result in there for seed in result["seeds"]}
        return [experiment.replace(seed=seed) for seed in range(seeds) if seed not in present]

    def collect(self, experiment: Experiment) -> list[Path]:
        """Join the finished runs of an experiment with its results; return the files that are written.

        Runs that were stopped after their first epoch are a result of their own.
        """
        from stbp.train.runs import read_config

        seeds = self.wanted[experiment]
        there = [run for run in self._missing(experiment, seeds, ()) if _is_finished(folder_of(run, self.out), run)]
        if not there or (experiment.folds is not None and len(there) < experiment.folds):
            return []
        known = self.results()
        missing = self._missing(experiment, seeds, known)
        finished = [folder_of(run, self.out) for run in there if run in missing]
        written = []
        for length, earlier in ((experiment.epochs, find), (1, find_stopped)):
            folders = [folder for folder in finished if read_config(folder).epochs == length]
            finished = [folder for folder in finished if folder not in folders]
            if folders:
                registered, result = report.join(folders, earlier(known, experiment))
                commits = [run["summary"]["commit"] for run in result["runs"]]
                written.append(report.write(registered, result, self._folder_for(commits)))
        return written

    def _folder_for(self, commits: Sequence[str | None]) -> Path:
        """Published is what comes from commits without changes, in a checkout."""
        from stbp.train.runs import commit

        clean = all(one is not None and not one.endswith("+") for one in commits)
        return self.published if self.published is not None and commit() is not None and clean else self.local

    def run(
        self, jobs: Sequence[Job], at: Sequence[str | None] | None, data: Path | None, device: str, quiet: bool = False
    ) -> None:
        """Train the runs, and collect each experiment as soon as its last one is there; in this process without `at`.

        Raises:
            KeyboardInterrupt: as from `run_all`; what is finished has been collected.
        """
        board = _Board(jobs, 1 if at is None else len(at), self, quiet)
        try:
            if at is None:
                run_here(jobs, board, data=data, device=device)
            else:
                run_all(jobs, board, at=at, data=data, device=device)
        except KeyboardInterrupt:
            for experiment in self.wanted:
                self.collect(experiment)
            raise
        finally:
            board.close()


def folder_of(run: Experiment, out: Path) -> Path:
    """Folder of a run, by seed and fold: where `stbp train` and `stbp crossvalidate` put registered experiments."""
    name = f"{report.file_name(run.replace(folds=None, fold=None))}-seed{run.seed}"
    return out / name if run.folds is None else out / f"{name}-{run.folds}-folds" / str(run.fold)


def _read(folder: Path) -> list[dict[str, Any]]:
    return report.read_results(folder) if folder.is_dir() else []


def _is_finished(folder: Path, run: Experiment) -> bool:
    """True if the folder holds the whole run, or the first epoch of a run that cannot learn."""
    if not (folder / "config.json").exists():
        return False
    from stbp.train.runs import read_config, read_summary

    summary = read_summary(folder)
    if not summary:
        return False
    stored = read_config(folder)
    return stored == run or (stored == run.replace(epochs=1) and cannot_learn(summary))


class _Board:
    """Tells on standard error how far the runs are, and how long the rest will take at the pace so far."""

    def __init__(self, jobs: Sequence[Job], places: int, plan: Plan, quiet: bool):
        """`quiet`: no line for each run."""
        self.jobs, self.places, self.plan, self.quiet = jobs, places, plan, quiet
        self.epochs = dict.fromkeys(jobs, 0.0)  # done, of every run that goes on or is to come
        self.family = {job: report.family(job.experiment) for job in jobs}
        self.since: dict[Job, tuple[float, float]] = {}  # when a run began here, and at which epoch
        self.pace: dict[str, float] = {}  # seconds an epoch, by experiment
        self.console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[text]}"))
        self.bars = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.tasks: dict[Job, TaskID] = {}
        self.all = self.bars.add_task("runs", total=len(jobs), text="")
        self.bars.start()

    def started(self, job: Job) -> None:
        total = job.experiment.epochs
        self.tasks[job] = self.bars.add_task(_name(job), total=total, text=f"0/{total} epochs")

    def reached(self, job: Job, epochs: float) -> None:
        now = time.monotonic()
        begun, first = self.since.setdefault(job, (now, epochs))
        self.epochs[job] = epochs
        if epochs > first:
            self.pace[job.experiment.name] = (now - begun) / (epochs - first)
        self.bars.update(self.tasks[job], completed=epochs, text=f"{epochs:.1f}/{job.experiment.epochs} epochs")
        self.bars.update(self.all, text=self._left())

    def said(self, job: Job, text: str) -> None:
        if not self.quiet:
            self.console.print(f"{_name(job)}: {text}", markup=False)

    def ended(self, job: Job, error: str | None) -> None:
        del self.epochs[job]
        self.bars.remove_task(self.tasks.pop(job))
        if error is not None:
            self.plan.failures.setdefault(job.experiment.name, []).append(error)
        self.bars.update(self.all, advance=1, text=self._left())
        done = len(self.jobs) - len(self.epochs)
        outcome = "done" if error is None else f"failed: {error}"
        self.said(job, f"{outcome}; {done} of {len(self.jobs)} runs, {self._left()}")
        family = self.family[job]
        if all(self.family[other] != family for other in self.epochs):
            for path in self.plan.collect(family):
                self.said(job, f"collected into {path}")

    def _left(self) -> str:
        """Time for the rest; an experiment that has not been seen yet counts as the mean of those that have."""
        if not self.epochs:
            return "none left"
        if not self.pace:
            return "time left not known yet"
        mean = sum(self.pace.values()) / len(self.pace)
        seconds = sum(
            (job.experiment.epochs - done) * self.pace.get(job.experiment.name, mean)
            for job, done in self.epochs.items()
        )
        return f"about {datetime.timedelta(seconds=round(seconds / self.places))} left"

    def close(self) -> None:
        self.bars.stop()


def _name(job: Job) -> str:
    e = job.experiment
    return f"{report.file_name(e)} " + (f"seed {e.seed}" if e.folds is None else f"fold {e.fold}")
