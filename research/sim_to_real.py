"""What networks that were trained on simulated recordings make of real ones.

    .venv/bin/python research/sim_to_real.py --data DIR RUN...

A run of `stbp train nmnist-sim` (or -cnn, -twin) is tested on the 900 real recordings that no parameter of the
simulation was fitted to, on the training and the test ones among them alone, and on all 1,100; beside them stands the
accuracy on the simulated recordings that were held out. The weights are the last epoch's.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch

import stbp
from stbp.camera.mnist_simulated import FITTED, SHOWN, number
from stbp.data.dataset import Windows
from stbp.data.events.sets import joined, load_events
from stbp.data.events.windows import EventWindows
from stbp.files import write_json
from stbp.train import evaluate
from stbp.train.source import source

FILE = Path(__file__).resolve().parent.parent / "results" / "simulation" / "transfer.json"


def judge(folder: Path, data: Path) -> dict[str, Any]:
    """Right answers of a run by group of real recordings."""
    run = evaluate.load_run(folder)
    train, test = load_events("n-mnist", data)
    numbers = torch.tensor([number(name) for name in train.names] + [0] * len(test))
    real = EventWindows(joined(train, test))
    windows = Windows(real, run.experiment.window, run.experiment.seed)
    batches = source(windows, None, 0, torch.device("cpu"), "real").plain()
    found = list(evaluate.predictions(run.network, batches, run.experiment.readout))
    right = torch.cat([p == y for p, y in found]).cpu()
    is_test = torch.arange(len(real)) >= len(train)
    groups = {
        "not fitted": is_test | ((numbers > FITTED) & (numbers <= SHOWN)),
        "training, not fitted": ~is_test & (numbers > FITTED) & (numbers <= SHOWN),
        "test": is_test,
        "all": torch.ones_like(is_test),
    }
    accuracy = {}
    for name, chosen in groups.items():
        share, n = right[chosen].double().mean().item(), int(chosen.sum())
        accuracy[name] = {"recordings": n, "accuracy": share, "standard_error": math.sqrt(share * (1 - share) / n)}
    held_out = run.history[-1]["validation_accuracy"]
    return {
        "experiment": run.experiment.name,
        "seed": run.experiment.seed,
        "epochs": len(run.history),
        "training_recordings": run.summary["training_samples"],
        "simulated_held_out": held_out,
        "real": accuracy,
        "simulated_minus_real": held_out - accuracy["not fitted"]["accuracy"],
        "commit": run.summary["commit"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    found = [judge(folder, args.data) for folder in args.runs]
    FILE.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        FILE,
        {
            "command": "python research/sim_to_real.py --data DIR RUN...",
            "runs": found,
            "versions": {"stbp": stbp.__version__, "torch": torch.__version__},
        },
    )
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
