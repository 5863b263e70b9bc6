"""From `stbp plot` to files: which runs and data each kind of picture needs, and where it goes."""

from collections.abc import Sequence
from pathlib import Path

from stbp import data as data_sets
from stbp import plot
from stbp.evaluation import Run, evaluate, load_run

SPIKES = ("raster", "potential", "rates")
NEEDS_DATA = (*SPIKES, "confusion")
KINDS = ("learning-curve", *NEEDS_DATA, "surrogates", "weights")


def draw(kind: str, folders: Sequence[Path], out: Path | None, sample: int, data: Path | None) -> list[Path]:
    """Draw one kind of picture, or all of them, for runs in folders; return the files written.

    Raises:
        ValueError: too few or too many runs for the kind, or an option without effect on it.
    """
    _check(kind, folders, out, sample, data)
    runs = [load_run(folder) for folder in folders]
    default = folders[0] if folders else Path()
    test_set = data_sets.for_experiment(runs[0].experiment, data)[1] if kind in (*NEEDS_DATA, "all") else None
    paths = []
    for each in KINDS if kind == "all" else (kind,):
        if kind == "all" and each in SPIKES and runs[0].experiment.neuron == "relu":
            continue
        path = out or default / f"{each}.png"
        plot.save(_figure(each, runs, test_set, sample, data), path)
        paths.append(path)
    return paths


def _check(kind: str, folders: Sequence[Path], out: Path | None, sample: int, data: Path | None) -> None:
    least, most = {"surrogates": (0, 1), "learning-curve": (1, None)}.get(kind, (1, 1))
    if len(folders) < least or (most is not None and len(folders) > most):
        wanted = "at least one run" if most is None else "one run" if least else "at most one run"
        raise ValueError(f"plot {kind} takes {wanted}; got {len(folders)}")
    if kind == "all" and out is not None:
        raise ValueError(
            "--out has no effect with plot all, which writes KIND.png into the run's folder; leave it away"
        )
    if data is not None and kind not in (*NEEDS_DATA, "all"):
        raise ValueError(f"--data has no effect on plot {kind}; leave it away")
    if sample != 0 and kind not in ("raster", "potential", "all"):
        raise ValueError(f"--sample has no effect on plot {kind}; leave it away")


def _figure(kind: str, runs: Sequence[Run], test_set: data_sets.DataSet | None, sample: int, data: Path | None):
    if kind == "learning-curve":
        return plot.learning_curve(runs)
    if kind == "surrogates":
        return plot.surrogates(runs[0].experiment.width, runs[0].experiment.threshold) if runs else plot.surrogates()
    run = runs[0]
    if kind == "weights":
        return plot.weights(run, run.shape)
    assert test_set is not None
    if kind == "confusion":
        return plot.confusion(evaluate(run, data=data), f"{run.experiment.name}, {run.experiment.network}")
    if kind == "rates":
        return plot.rates(run, test_set)
    return (plot.raster if kind == "raster" else plot.potential)(run, test_set, sample)
