"""Experiments by name: trained, and evaluated again."""

from pathlib import Path
from typing import Any

from stbp.config import Experiment
from stbp.experiments.datasets import for_experiment
from stbp.experiments.registry import experiment as experiment_called
from stbp.train import evaluate as evaluation
from stbp.train import fit as training
from stbp.train.evaluate import Evaluation, Run, load_run
from stbp.train.progress import Reporter


def fit(
    experiment: Experiment | str,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    graph: bool = False,
    report: Reporter | None = None,
    **fields: Any,
) -> Run:
    """Train an experiment, evaluate it after every epoch, and return what came out.

    Args:
        experiment: an `Experiment` or the name of a registered one.
        data: folder that holds data sets; None reads STBP_DATA, then the cache that downloads fill.
        out, resume, device, graph, report: as for `stbp.train.fit.fit`.
        fields: fields of the experiment to replace, such as `epochs=5`.

    Raises:
        ValueError: a field, a data file or the folder `out` is not as it must be; `DivergedError` if numbers overflow.
        KeyboardInterrupt: on Ctrl-C, after a checkpoint was written.
    """
    given = experiment_called(experiment) if isinstance(experiment, str) else experiment
    given = given.replace(**fields)
    if resume and out is None:
        raise ValueError("resume has no effect without out, the folder of the run to go on with")
    sets = for_experiment(given, data)
    return training.fit(given, *sets, out=out, resume=resume, device=device, graph=graph, report=report)


def evaluate(run: Run | str | Path, *, data: str | Path | None = None, device: str = "auto") -> Evaluation:
    """Label the test set of a run's experiment again, with the spikes that training measured with.

    Args:
        run: what `fit` returned, or the folder of a run.
        data: folder that holds data sets, as for `fit`.
    """
    run = run if isinstance(run, Run) else load_run(run)
    return evaluation.evaluate(run, for_experiment(run.experiment, data)[1], device)
