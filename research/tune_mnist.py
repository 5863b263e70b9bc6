"""The settings of tuned experiments on MNIST, and of the twin on simulated N-MNIST, by samples of the training set.

    .venv/bin/python research/tune_mnist.py NAME --data DIR

Each setting is trained with `seed` 0 on all training samples but 5,000, on which it is judged after the last epoch; the
test set has no say. Settings that results/tuning/NAME.json knows already are not trained again.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

import stbp
from stbp.files import write_json
from stbp.train.progress import Silent

VALIDATION = 5000
FOLDER = Path(__file__).resolve().parent.parent / "results" / "tuning"
MNIST: dict[str, Any] = {"dataset": "mnist", "network": "784-400-10", "T": 30, "threshold": 0.5, "epochs": 20}
SIMULATED: dict[str, Any] = {
    "dataset": "mnist-simulated", "network": "34x34x2-800-10", "neuron": "relu", "T": 1, "init": "torch",
    "step_ms": 310.0, "counts": True, "shift": 1, "epochs": 6,
}  # fmt: skip
AVERAGED = {"average": 0.999, "schedule": "constant"}
# What is tuned, from where, and what each setting changes in it.
TUNED: dict[str, tuple[dict[str, Any], tuple[dict[str, Any], ...]]] = {
    "mnist-mlp-400-tuned": (
        MNIST,
        (
            {"average": 0.999, "T": 10},
            {"average": 0.999, "T": 10, "drop": 0.3},
            {"average": 0.999, "T": 10, "loss": "cross_entropy"},
            {"average": 0.999, "T": 30},
            {"average": 0.999, "T": 30, "drop": 0.3},
            {"average": 0.999, "T": 30, "init": "torch"},
            {"average": 0.999, "T": 30, "learning_rate": 3e-3},
            {"average": 0.999, "T": 30, "schedule": "constant"},
            {**AVERAGED, "epochs": 40},
            {**AVERAGED, "epochs": 40, "drop": 0.15},
            {**AVERAGED, "epochs": 40, "rate_penalty": 1e-3},
        ),
    ),
    "mnist-mlp-tuned": (
        {**MNIST, **AVERAGED, "network": "784-800-10"},
        (
            {},
            {"epochs": 40},
            {"epochs": 40, "drop": 0.15},
            {"epochs": 60, "drop": 0.3},
            {"epochs": 40, "average": 0.9998},
            {"epochs": 40, "average": 0.9995, "weight_decay": 0.1},
            {"weight_decay": 0.1},
            {"epochs": 40, "average": 0.9995},
        ),
    ),
    "mnist-mlp-elastic": (
        {**MNIST, **AVERAGED, "network": "784-800-10", "epochs": 40},
        (
            {"shift": 1},
            {"shift": 1, "elastic": 1.0},
            {"shift": 1, "elastic": 1.0, "T": 10},
        ),
    ),
    "nmnist-sim-twin": (
        SIMULATED,
        (
            {},
            {"learning_rate": 3e-4},
            {"learning_rate": 1e-4},
            {"learning_rate": 3e-4, "loss": "cross_entropy"},
            {"learning_rate": 3e-4, "counts": False},
        ),
    ),
}


def trial(name: str, fields: dict[str, Any], data: Path) -> dict[str, Any]:
    """Train one setting."""
    e = stbp.Experiment.of(name=name, validation=VALIDATION, **fields)
    run = stbp.fit(e, data=data, report=Silent())
    last = run.history[-1]
    accuracy, seconds = last["validation_accuracy"], run.summary["seconds"]
    print(f"{fields}  validation {100 * accuracy:.2f} %, {seconds:.0f} s", flush=True)
    found = {key: last[key] for key in ("train_accuracy", "firing_rate")}
    return {
        "fields": fields,
        "validation_accuracy": [accuracy],
        **found,
        "seconds": seconds,
        "commit": run.summary["commit"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=TUNED)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help="where NAME.json is")
    args = parser.parse_args()
    base, changes = TUNED[args.name]
    file = args.out / f"{args.name}.json"
    trials = json.loads(file.read_text())["trials"] if file.exists() else []
    for fields in ({**base, **change} for change in changes):
        if fields in [found["fields"] for found in trials]:
            continue
        trials.append(trial(args.name, fields, args.data))
        result = {
            "command": f"python research/tune_mnist.py {args.name} --data DIR",
            "experiment": args.name,
            "seeds": [0],
            "validation": VALIDATION,
            "trials": trials,
            "best": max(trials, key=lambda one: one["validation_accuracy"])["fields"],
            "versions": {"stbp": stbp.__version__, "torch": torch.__version__},
        }
        write_json(file, result)


if __name__ == "__main__":
    main()
