"""Published results: one JSON per number in `results/`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stbp.config import FILELESS, Experiment
from stbp.experiments.jobs import cannot_learn
from stbp.experiments.registry import entries
from stbp.experiments.stats import Estimate, estimate
from stbp.files import write_json

FOLDER = Path(__file__).resolve().parents[2] / "results"
FOLDS = 10  # of a cross-validation that names no other number
VARIED = ("seed", "folds", "fold")  # fields that tell the runs of one result apart, or how they are divided


def collect(folders: Sequence[Path], into: Path = FOLDER) -> Path:
    """Join finished runs with the result that is there; return the path of its file. Errors as for `join`."""
    experiment, result = join(folders)
    earlier = _place(experiment, into)
    if earlier.exists() and experiment.folds is None:
        experiment, result = join(folders, json.loads(earlier.read_text()))
    return write(experiment, result, into)


def _place(experiment: Experiment, results: Path) -> Path:
    """The file of an experiment's result: variants of registered experiments lie apart."""
    folder = results if is_registered(experiment) else results / "variants"
    return folder / f"{file_name(experiment)}.json"


def write(experiment: Experiment, result: dict[str, Any], into: Path) -> Path:
    """Write what `join` returned into a folder of results; return the file's path."""
    path = _place(experiment, into)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result)
    return path


def join(folders: Sequence[Path], earlier: dict[str, Any] | None = None) -> tuple[Experiment, dict[str, Any]]:
    """The result of finished runs of one experiment, a seed each, or a fold each of one cross-validation.

    Args:
        earlier: a result of the same experiment, to which the runs add seeds.

    Returns:
        The experiment, its seed and fold 0, and the result: command, experiment, the runs' test accuracies and seeds,
        summaries and metrics; of a cross-validation also its `folds`, the number of `samples` and the
        `pooled_accuracy`, the share of all samples that were labelled rightly when their fold was tested on.

    Raises:
        ValueError: no run, an unfinished run, runs of different experiments, a seed that comes twice, or a fold that
            comes twice or not at all.
    """
    if not folders:
        raise ValueError("name the run folders that the result is made of")
    runs = [_read(folder) for folder in folders] + ([] if earlier is None else _runs(earlier))
    first = family(runs[0][0])
    sources = [*map(str, folders), *["the earlier result"] * (len(runs) - len(folders))]
    for source, (experiment, _, _) in zip(sources, runs, strict=True):
        if family(experiment) != first:
            raise ValueError(
                f"{source} is a run of another experiment than {folders[0]}: only their seeds or folds may differ"
            )
    runs.sort(key=lambda run: (run[0].seed, run[0].fold or 0))
    seeds = sorted({experiment.seed for experiment, _, _ in runs})
    accuracies = [summary["test_accuracy"] for _, summary, _ in runs]
    result = {
        "command": command(first) + ("" if seeds == [0] else f" --seed S  (S: {', '.join(map(str, seeds))})"),
        "experiment": {k: v for k, v in first.flat().items() if k not in VARIED},
        "test_accuracy": accuracies,
        "seeds": seeds,
        "runs": [{"summary": summary, "metrics": metrics} for _, summary, metrics in runs],
    }
    if first.folds is None:
        if len(seeds) < len(runs):
            raise ValueError(
                "every run must have a seed of its own, other than those in results; "
                f"got seeds {[run[0].seed for run in runs]}"
            )
        return first, result
    found = [experiment.fold for experiment, _, _ in runs]
    if len(seeds) > 1 or found != list(range(first.folds)):
        raise ValueError(
            f"a cross-validation needs each of the folds 0..{first.folds - 1} once, all of one seed; "
            f"got folds {found}, seeds {seeds}"
        )
    sizes = [summary["test_samples"] for _, summary, _ in runs]
    right = sum(size * accuracy for size, accuracy in zip(sizes, accuracies, strict=True))
    return first, {**result, "folds": first.folds, "samples": sum(sizes), "pooled_accuracy": right / sum(sizes)}


def _runs(result: dict[str, Any]) -> list[tuple[Experiment, dict[str, Any], list[dict[str, Any]]]]:
    """The runs that a result without folds was joined from, as `_read` gives them."""
    experiment = Experiment.of(**result["experiment"])
    return [(experiment.replace(seed=run["summary"]["seed"]), run["summary"], run["metrics"]) for run in result["runs"]]


def family(run: Experiment) -> Experiment:
    """Return the experiment that a run with its seed or fold belongs to: that of seed 0 and fold 0."""
    return run.replace(seed=0, fold=None if run.fold is None else 0)


def _read(folder: Path) -> tuple[Experiment, dict[str, Any], list[dict[str, Any]]]:
    for name in ("config.json", "summary.json", "metrics.jsonl"):
        if not (folder / name).exists():
            raise ValueError(f"{folder} holds no finished run: there is no {name} in it")
    experiment = Experiment.of(**json.loads((folder / "config.json").read_text()))
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    if summary["epochs"] != len(metrics) or (len(metrics) != experiment.epochs and experiment.patience is None):
        raise ValueError(f"{folder} holds no finished run: {len(metrics)} of {experiment.epochs} epochs")
    return experiment, summary, metrics


def _changes(experiment: Experiment) -> dict[str, Any]:
    """The fields in which an experiment differs from the registered one of its name."""
    entry = entries().get(experiment.name)
    if entry is None:
        raise ValueError(f"{experiment.name} is not registered: a published number needs an experiment in paper.py")
    registered = entry.experiment.flat()
    return {k: v for k, v in experiment.flat().items() if v != registered[k] and k not in VARIED}


def is_registered(experiment: Experiment) -> bool:
    """True if an experiment is the registered one of its name, whatever its seed, fold, and number of epochs."""
    return not set(_changes(experiment)) - {"epochs"}


def command(experiment: Experiment) -> str:
    """The command that repeats a run, or the cross-validation that it is part of, seed left to its default."""
    flags = "".join(f" {_flag(name.replace('_', '-'), value)}" for name, value in _changes(experiment).items())
    if experiment.folds not in (None, FOLDS):
        flags += f" --folds {experiment.folds}"
    data = "" if experiment.dataset in FILELESS else " --data DIR"
    verb = "train" if experiment.folds is None else "crossvalidate"
    return f"stbp {verb} {experiment.name}{flags}{data}"


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name} {value}"


def file_name(experiment: Experiment) -> str:
    """File name of a result, without `.json`: the experiment's name, and what differs from the registered one."""
    changes = [f"{name}-{value}" for name, value in _changes(experiment).items()]
    folds = [] if experiment.folds is None else [f"{experiment.folds}-folds"]
    return "-".join([experiment.name, *folds, *changes])


def read_results(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """All results of registered experiments, in their order, then by file name; none where there is no folder."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    order = list(entries())
    return sorted(
        (r for r in results if r["experiment"]["name"] in order), key=lambda r: order.index(r["experiment"]["name"])
    )


def accuracy(result: dict[str, Any]) -> str:
    """Mean of the last epoch's test accuracy over runs, with standard deviation if there are several, in per cent."""
    return mean_and_sd(estimate(result["test_accuracy"]))


def mean_and_sd(accuracy: Estimate) -> str:
    """An accuracy in per cent, with its standard deviation over runs if there are several."""
    spread = "" if accuracy.sd is None else f" ± {100 * accuracy.sd:.2f}"
    return f"{100 * accuracy.mean:.2f}{spread}"


def over(result: dict[str, Any]) -> str:
    """Seeds, or folds and samples, that `accuracy` is the mean of: `5 seeds`, or `10 folds, 1,100 samples`."""
    if "folds" in result:
        return f"{result['folds']} folds, {result['samples']:,} samples"
    return f"{len(result['seeds'])} seed{'s' if len(result['seeds']) > 1 else ''}"


def network(experiment: Experiment) -> str:
    """An experiment's network, and what tells it from the same network trained by STBP."""
    twin = ", ReLU" if experiment.neuron == "relu" else ""
    return experiment.network + twin + (", SDBP" if experiment.gate == "spatial" else "")


def silent(result: dict[str, Any]) -> bool:
    """True if in all of the runs no gradient enters the network."""
    return all(cannot_learn(run["summary"]) for run in result["runs"])
