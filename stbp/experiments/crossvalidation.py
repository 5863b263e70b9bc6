"""`crossvalidate`: an experiment trained once for each fold of its data, and tested on that fold."""

from pathlib import Path
from typing import Any

from stbp.config import Experiment
from stbp.experiments import results
from stbp.experiments.run import fit
from stbp.files import write_json
from stbp.train.progress import Console, Reporter

FILE = "crossvalidation.json"


def crossvalidate(
    experiment: Experiment,
    *,
    data: str | Path | None = None,
    out: str | Path,
    resume: bool = False,
    device: str = "auto",
    report: Reporter | None = None,
) -> dict[str, Any]:
    """Train on all folds but one and test on that one, for each in turn; which sample is where: `stbp.data.folds`.

    Args:
        experiment: a registered one, perhaps with other values of some fields; with `folds`. Its `fold` has no say.
        out: the folder for the runs, `out/0`, `out/1`, ..., each as `fit` writes it, and their result, `FILE`.
        resume: go on where an earlier call in `out` was stopped; runs that are complete stay as they are.
        data, device, report: as for `fit`.

    Returns:
        What `FILE` holds: see `stbp.experiments.results.join`.

    Raises:
        ValueError: the experiment is not registered or has no folds, or `out` holds runs and `resume` is not set.
        KeyboardInterrupt: as from `fit`.
    """
    results.command(experiment)  # an unregistered experiment is told of before the training, not behind it
    if experiment.folds is None:
        raise ValueError("cross-validation needs the number of folds; set folds, and fold to 0")
    report = report or Console()
    folders = [Path(out) / str(fold) for fold in range(experiment.folds)]
    if not resume and any(folder.exists() for folder in folders):
        raise ValueError(
            f"{out} already holds runs; add --resume to go on with them, or name another folder with --out"
        )
    for fold, folder in enumerate(folders):
        report.say(f"fold {fold} of 0..{experiment.folds - 1}")
        fit(
            experiment.replace(fold=fold),
            data=data,
            out=folder,
            resume=(folder / "config.json").exists(),
            device=device,
            report=report,
        )
    _, result = results.join(folders)
    write_json(Path(out) / FILE, result)
    return result
