"""`stbp train` and `stbp crossvalidate`: every field of an experiment is a flag. Torch is imported when they run."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.markup import escape
from tyro.conf import OmitArgPrefixes

from stbp.cli.terminal import Device, arguments, say, set_threads
from stbp.config import Experiment
from stbp.experiments import registry, results
from stbp.train.allocator import keep_freed_memory


@dataclass(frozen=True)
class Train:
    """An experiment and how to run it; the defaults shown are the named experiment's own."""

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
        """Folder of the run that `train` makes."""
        e = self.experiment
        runs = Path("runs") / f"{e.name}-seed{e.seed}"
        return self.out or (runs if e.folds is None else Path(f"{runs}-{e.folds}-folds") / str(e.fold))

    @property
    def folds_folder(self) -> Path:
        """Folder of the runs that `crossvalidate` makes."""
        return self.out or self.folder.parent


def _command(
    entry: registry.Entry, run: Callable[[Train], None], folder_of: Callable[[Train], Path], **fields: Any
) -> Callable[..., None]:
    """Return the command of one experiment, whose flags begin at its values, but for those of the given fields.

    Args:
        run: is called with the flags.
        folder_of: returns the folder of the run that --resume goes on with; what was not given is taken from there.
    """
    try:
        default = Train(entry.experiment.replace(**fields))
    except ValueError as error:
        return partial(_refuse, error)

    def command(command: OmitArgPrefixes[Train] = default) -> None:
        folder = folder_of(command)
        if command.resume and (folder / "config.json").exists():
            from stbp.train import runs

            stored = runs.read_config(folder)
            if stored.name != entry.experiment.name:
                raise ValueError(f"{folder} holds a run of {stored.name}, not of {entry.experiment.name}")
            command = tyro.cli(Train, args=arguments()[2:], default=Train(stored, out=command.out))
        keep_freed_memory()
        set_threads(command.threads)
        run(command)

    command.__doc__ = f"{entry.about[0].upper()}{entry.about[1:]}: {entry.experiment.network}."
    return command


def _refuse(error: ValueError) -> None:
    raise error


def _train(command: Train) -> None:
    from stbp.experiments.run import fit

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
    behind = [str(command.folder), *([] if command.data is None else ["--data", str(command.data)])]
    say("next: " + escape("   ".join(shlex.join(["stbp", *verb, *behind]) for verb in (["eval"], ["plot", "all"]))))


def _crossvalidate(command: Train) -> None:
    from stbp.experiments.crossvalidation import FILE, crossvalidate

    if command.experiment.fold != 0:
        raise ValueError("stbp crossvalidate trains every fold, so fold has no effect; stbp train --fold trains one")
    folder = command.folds_folder
    result = crossvalidate(
        command.experiment, data=command.data, out=folder, resume=command.resume, device=command.device
    )
    say(
        f"test accuracy {results.accuracy(result)} %, mean and standard deviation over {results.over(result)}; "
        f"pooled {100 * result['pooled_accuracy']:.2f} %; all of it is in {escape(str(folder / FILE))}"
    )


_ENTRIES = registry.entries()
TRAIN = {name: _command(entry, _train, lambda command: command.folder) for name, entry in _ENTRIES.items()}
CROSSVALIDATE = {
    name: _command(entry, _crossvalidate, lambda command: command.folds_folder / "0", folds=results.FOLDS, fold=0)
    for name, entry in _ENTRIES.items()
}
