"""`stbp train` and `stbp crossvalidate`: every field of an experiment is a flag. Torch is imported when they run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from tyro.conf import OmitArgPrefixes

from stbp.config import Experiment
from stbp.experiments import registry
from stbp.train.allocator import keep_freed_memory

Device = Literal["auto", "cpu", "cuda"]


def say(*parts: Any) -> None:
    """Print for people: with markup, and without breaking lines that they may want to copy."""
    Console(highlight=False, soft_wrap=True).print(*parts)


@dataclass(frozen=True)
class Train:
    """Train an experiment. Every field of it is a flag; the defaults shown are this experiment's own."""

    experiment: OmitArgPrefixes[Experiment]
    # Folder for config, metrics, checkpoint and summary, runs/NAME-seedS by default; of a cross-validation the folder
    # for those of its folds and their result, runs/NAME-seedS-10-folds by default.
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    # Folder that holds data sets; otherwise the environment variable STBP_DATA, then a download into a cache.
    data: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    # Go on with the run in --out, bit for bit as if it had not been stopped.
    resume: bool = False
    # Where to compute.
    device: Device = "auto"
    # On a GPU, replay each step as one CUDA graph; no GPU has run this yet.
    graph: bool = False
    # Threads of the processor; all of its cores by default.
    threads: int | None = None

    @property
    def folder(self) -> Path:
        """Of the run, where `train` makes one."""
        e = self.experiment
        runs = Path("runs") / f"{e.name}-seed{e.seed}"
        return self.out or (runs if e.folds is None else Path(f"{runs}-{e.folds}-folds") / str(e.fold))


def train(args: Sequence[str]) -> None:
    """Train an experiment: stbp train NAME [flags]; `stbp train NAME --help` shows them all."""
    _train(_parse("train", args, lambda command: command.folder))


def crossvalidate(args: Sequence[str]) -> None:
    """Train once for each fold of the data, and test on that fold: stbp crossvalidate NAME [flags]."""
    from stbp.experiments import results

    command = _parse("crossvalidate", args, lambda command: _folds_folder(command) / "0", folds=results.FOLDS, fold=0)
    if command.experiment.fold != 0:
        raise ValueError("stbp crossvalidate trains every fold, so fold has no effect; stbp train --fold trains one")
    _crossvalidate(command)


def _folds_folder(command: Train) -> Path:
    return command.out or command.folder.parent


def _parse(verb: str, args: Sequence[str], first_run: Callable[[Train], Path], **fields: Any) -> Train:
    """The flags behind a name; to resume the run in the folder that `first_run` names, its fields are the defaults."""
    named = bool(args) and not args[0].startswith("-")
    if not named and not {"-h", "--help"} & set(args):
        raise ValueError(
            f"stbp {verb} needs the name of an experiment, as in: stbp {verb} digits-mlp; stbp list shows all"
        )
    experiment = registry.experiment(args[0] if named else "digits-mlp").replace(**fields)
    prog, rest = f"stbp {verb} {args[0] if named else 'NAME'}", args[1:] if named else args
    command = tyro.cli(Train, prog=prog, args=rest, default=Train(experiment))
    folder = first_run(command)
    if command.resume and (folder / "config.json").exists():
        from stbp.train import runs

        # flags that are not given keep the value that the run was started with
        stored = runs.read_config(folder)
        if stored.name != command.experiment.name:
            raise ValueError(f"{folder} holds a run of {stored.name}, not of {command.experiment.name}")
        command = tyro.cli(Train, prog=prog, args=rest, default=Train(stored, out=command.out))
    return command


def _train(command: Train) -> None:
    from stbp.experiments.run import fit

    keep_freed_memory()
    set_threads(command.threads)
    run = fit(
        command.experiment,
        data=command.data,
        out=command.folder,
        resume=command.resume,
        device=command.device,
        graph=command.graph,
    )
    say(
        f"test accuracy {100 * run.test_accuracy:.2f} % after epoch {run.summary['epochs']}, "
        f"{run.summary['seconds']:.0f} s; the run is in {escape(str(command.folder))}"
    )
    say(f"next: stbp eval {escape(str(command.folder))}   stbp plot all {escape(str(command.folder))}")


def _crossvalidate(command: Train) -> None:
    from stbp.experiments import results
    from stbp.experiments.crossvalidation import FILE, crossvalidate

    keep_freed_memory()
    set_threads(command.threads)
    folder = _folds_folder(command)
    result = crossvalidate(
        command.experiment, data=command.data, out=folder, resume=command.resume, device=command.device
    )
    say(
        f"test accuracy {results.accuracy(result)} %, mean and standard deviation over {results.over(result)}; "
        f"pooled {100 * result['pooled_accuracy']:.2f} %; all of it is in {escape(str(folder / FILE))}"
    )


def set_threads(threads: int | None) -> None:
    if threads is None:
        return
    if threads < 1:
        raise ValueError(f"threads must be at least 1; got {threads}")
    import torch

    torch.set_num_threads(threads)
