"""How far back in time the gradient reaches in trained networks.

    .venv/bin/python benchmarks/gradient_reach.py RUN... --data DIR

Measures `stbp.reach.gradient_reach` on 500 test samples of each run and joins it to results/reach/gradient.json.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import torch

import stbp
from stbp import data as data_sets
from stbp import runs
from stbp.evaluation import batch
from stbp.experiment import FILELESS
from stbp.files import write_json
from stbp.reach import gradient_reach

SAMPLES = 500
FILE = Path(__file__).resolve().parent.parent / "results" / "reach" / "gradient.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    networks = json.loads(FILE.read_text())["networks"] if FILE.exists() else {}
    for folder in args.runs:
        run = stbp.load_run(folder)
        e = run.experiment
        _, test_set = data_sets.for_experiment(e, None if e.dataset in FILELESS else args.data)
        x, y = batch(e, test_set, torch.arange(min(SAMPLES, len(test_set))), 0, torch.device("cpu"))
        norms = gradient_reach(run.network, x, y).tolist()
        networks[e.name] = {
            "experiment": dataclasses.asdict(e),
            "test_accuracy": run.test_accuracy,
            "samples": len(y),
            # of k = 0, 1, ... steps back; `relative` to k = 0
            "norm": norms,
            "relative": [norm / norms[0] if norms[0] else None for norm in norms],
        }
        print(e.name, "  ".join(f"{norm:.2g}" for norm in norms))
    FILE.parent.mkdir(parents=True, exist_ok=True)
    command = "python benchmarks/gradient_reach.py RUN... --data DIR"
    write_json(FILE, {"command": command, "commit": runs.commit(), "networks": networks})


if __name__ == "__main__":
    main()
