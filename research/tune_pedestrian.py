"""The settings of `pedestrian-*`: as many trials for each spiking network as for its twin, on validation samples.

    .venv/bin/python research/tune_pedestrian.py [NAME...] --data DIR

Each setting is trained with every seed of its search, each time on all training images but 300 of its own, and judged
by the mean validation accuracy after the last epoch; the test images have no say. Writes results/tuning/NAME.json.
"""

import argparse
import itertools
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import torch

import stbp
from stbp.config import Experiment
from stbp.experiments import registry
from stbp.files import write_json
from stbp.train import runs
from stbp.train.progress import Silent

VALIDATION = 300
RATES = (1e-4, 3e-4, 1e-3)


class Search(NamedTuple):
    """The values to try, every combination of them; the seeds; the epochs, where not those of the experiment."""

    grid: dict[str, tuple[Any, ...]]
    seeds: tuple[int, ...] = (0, 1)
    epochs: int | None = None


SPIKING = Search({"learning_rate": RATES, "threshold": (0.3, 1.0)})
TWIN = Search({"learning_rate": RATES, "loss": ("rate_mse", "cross_entropy")})
SEARCHES = {
    "pedestrian-mlp": SPIKING,
    "pedestrian-mlp-twin": TWIN,
    "pedestrian-cnn": SPIKING,
    "pedestrian-cnn-twin": TWIN,
    "pedestrian-mlp-paper-adam": Search({"learning_rate": RATES}, seeds=(0,), epochs=10),  # of 210
}


def trial(experiment: Experiment, seeds: tuple[int, ...], fields: dict[str, Any], data: Path) -> dict[str, Any]:
    """Train one setting with every seed."""
    found = [
        stbp.fit(experiment, data=data, report=Silent(), seed=seed, validation=VALIDATION, **fields).history[-1]
        for seed in seeds
    ]
    accuracies = [metrics["validation_accuracy"] for metrics in found]
    print(f"{experiment.name}  {fields}  validation {100 * statistics.mean(accuracies):.2f} %", flush=True)
    return {"fields": fields, "validation_accuracy": accuracies}


def tune(name: str, data: Path, commit: str | None) -> dict[str, Any]:
    """Try every setting of an experiment; the best is that of the highest mean validation accuracy."""
    grid, seeds, epochs = SEARCHES[name]
    registered = registry.experiment(name)
    experiment = registered.replace(epochs=epochs or registered.epochs)
    settings = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    trials = [trial(experiment, seeds, fields, data) for fields in settings]
    return {
        "command": f"python research/tune_pedestrian.py {name} --data DIR",
        "experiment": name,
        "epochs": experiment.epochs,
        "seeds": seeds,
        "validation": VALIDATION,
        "trials": trials,
        "best": max(trials, key=lambda found: statistics.mean(found["validation_accuracy"]))["fields"],
        "versions": runs.versions(),
        "commit": commit,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", default=list(SEARCHES), choices=list(SEARCHES))
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    folder = Path(__file__).resolve().parent.parent / "results" / "tuning"
    folder.mkdir(exist_ok=True)
    commit = runs.commit()  # now, when the code was read
    for name in args.names:
        write_json(folder / f"{name}.json", tune(name, args.data, commit))


if __name__ == "__main__":
    main()
