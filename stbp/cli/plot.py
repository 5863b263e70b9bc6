"""From `stbp plot` to files: which runs, recordings and data each kind of picture needs, and where it goes."""

from collections.abc import Sequence
from pathlib import Path

from stbp import data as data_sets
from stbp.experiments.datasets import for_experiment
from stbp.plot import runs as plot
from stbp.plot.style import save
from stbp.train.evaluate import Run, evaluate, load_run

SPIKES = ("raster", "potential", "rates")
NEEDS_DATA = (*SPIKES, "confusion")
KINDS = ("learning-curve", *NEEDS_DATA, "surrogates", "weights")  # of `all`
TAKES = {  # how many paths, and in words; the others take one run
    "surrogates": (0, 1, "at most one run"),
    "learning-curve": (1, None, "at least one run"),
    "events": (1, 1, "one recording"),
    "movie": (2, 2, "a run and a recording"),
}


def draw(kind: str, paths: Sequence[Path], out: Path | None, sample: int, data: Path | None) -> list[Path]:
    """Draw one kind of picture, or all of them, for runs in folders and recordings; return the files written.

    Raises:
        ValueError: too few or too many paths for the kind, one that it cannot draw, or an option without effect on it.
    """
    _check(kind, paths, out, sample, data)
    if kind == "events":
        return [_draw_recording(paths[0], out)]
    if kind == "movie":
        return [_draw_movie(paths[0], paths[1], out)]
    return _draw_runs(kind, paths, out, sample, data)


def _draw_recording(path: Path, out: Path | None) -> Path:
    from stbp.data.events.formats.reading import read
    from stbp.plot import recording as event_plot

    if (path / "config.json").is_file():
        raise ValueError(f"{path}: a run, not a recording; stbp plot all draws it")
    out = out or Path(f"{path.stem}-events.png")  # here: data sets are not written to, archives cannot be
    save(event_plot.recording(read(path), str(path)), out)
    return out


def _draw_movie(folder: Path, recording: Path, out: Path | None) -> Path:
    from stbp.plot import movie

    out = out or folder / "movie.gif"
    movie.check_name(out)
    movie.save(movie.pictures(load_run(folder), recording), out)
    return out


def _draw_runs(kind: str, folders: Sequence[Path], out: Path | None, sample: int, data: Path | None) -> list[Path]:
    runs = [load_run(folder) for folder in folders]
    default = folders[0] if folders else Path()
    test_set = for_experiment(runs[0].experiment, data)[1] if kind in (*NEEDS_DATA, "all") else None
    paths = []
    for each in KINDS if kind == "all" else (kind,):
        if kind == "all" and each in SPIKES and runs[0].experiment.neuron == "relu":
            continue
        path = out or default / f"{each}.png"
        save(_figure(each, runs, test_set, sample, data), path)
        paths.append(path)
    return paths


def _check(kind: str, paths: Sequence[Path], out: Path | None, sample: int, data: Path | None) -> None:
    least, most, wanted = TAKES.get(kind, (1, 1, "one run"))
    if len(paths) < least or (most is not None and len(paths) > most):
        raise ValueError(f"plot {kind} takes {wanted}; got {len(paths)}")
    if kind == "all" and out is not None:
        raise ValueError("--out has no effect with plot all, which writes KIND.png into the run's folder; omit it")
    if data is not None and kind not in (*NEEDS_DATA, "all"):
        raise ValueError(f"--data has no effect on plot {kind}; omit it")
    if sample != 0 and kind not in ("raster", "potential", "all"):
        raise ValueError(f"--sample has no effect on plot {kind}; omit it")


def _figure(kind: str, runs: Sequence[Run], test_set: data_sets.DataSet | None, sample: int, data: Path | None):
    if kind == "learning-curve":
        return plot.learning_curve(runs)
    if kind == "surrogates":
        return plot.surrogates(runs[0].experiment.width, runs[0].experiment.threshold) if runs else plot.surrogates()
    run = runs[0]
    if kind == "weights":
        C, H, W = run.shape
        return plot.weights(run, (C, H, W))
    assert test_set is not None
    if kind == "confusion":
        return plot.confusion(evaluate(run, test_set), f"{run.experiment.name}, {run.experiment.network}")
    if kind == "rates":
        return plot.rates(run, test_set)
    return (plot.raster if kind == "raster" else plot.potential)(run, test_set, sample)
