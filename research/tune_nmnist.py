"""The settings of `nmnist-mlp`, by validation inside the training folds of two of its ten folds.

    .venv/bin/python research/tune_nmnist.py --data DIR [--jobs 2]

Each setting is trained twice: on the recordings outside fold 0, and on those outside fold 5, each time but for 198 of
them, on which it is judged after the last epoch. The fold that is left out has no say; but the 198 lie in other folds,
so the cross-validated accuracy of the best of these settings is not wholly blind to the choice among them. Settings
that results/tuning/nmnist-mlp.json knows already are not trained again.
"""

import argparse
import json
import logging
import multiprocessing
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import torch

import stbp
from stbp.experiments import registry
from stbp.experiments.results import FOLDS
from stbp.files import write_json
from stbp.train import runs
from stbp.train.progress import Silent

NAME, TRIED, VALIDATION = "nmnist-mlp", (0, 5), 198
FILE = Path(__file__).resolve().parent.parent / "results" / "tuning" / f"{NAME}.json"
BASE: dict[str, Any] = {
    "epochs": 60,
    "step_ms": 10.0,
    "shift": 1,
    "learning_rate": 1e-3,
    "batch_size": 100,
}
# What a setting changes in BASE.
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"init": "torch"},
    {"batch_size": 30},
    {"stabilize": True},
    {"jitter_ms": 3.0},
    {"drop": 0.3},
)


def trial(changes: dict[str, Any], data: Path, commit: str | None) -> dict[str, Any]:
    """Train one setting outside of every tried fold."""
    logging.disable(logging.WARNING)  # that the set is a part of N-MNIST, every time
    torch.set_num_threads(1)
    fields = {**BASE, **changes}
    found = [
        stbp.fit(NAME, data=data, report=Silent(), folds=FOLDS, fold=k, validation=VALIDATION, **fields).history[-1]
        for k in TRIED
    ]
    accuracies = {key: [metrics[key] for metrics in found] for key in ("validation_accuracy", "train_accuracy")}
    print(f"{changes}  validation {100 * statistics.mean(accuracies['validation_accuracy']):.2f} %", flush=True)
    return {"fields": fields, **accuracies, "commit": commit}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    trials = json.loads(FILE.read_text())["trials"] if FILE.exists() else []
    known = [found["fields"] for found in trials]
    pending = [changes for changes in SETTINGS if {**BASE, **changes} not in known]
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        for found in pool.imap(partial(trial, data=args.data, commit=runs.commit()), pending):
            trials.append(found)
            best = max(trials, key=lambda one: statistics.mean(one["validation_accuracy"]))
            write_json(
                FILE,
                {
                    "command": "python research/tune_nmnist.py --data DIR",
                    "experiment": NAME,
                    "network": registry.experiment(NAME).network,
                    "folds": FOLDS,
                    "tried_folds": TRIED,
                    "validation": VALIDATION,
                    "trials": trials,
                    "best": best["fields"],
                    "versions": {"stbp": stbp.__version__, "torch": torch.__version__},
                },
            )


if __name__ == "__main__":
    main()
