"""How far back in time the gradient reaches in trained networks.

    .venv/bin/python research/gradient_reach.py RUN... --data DIR

Measures `gradient_reach` on 500 test samples of each run and joins it to results/reach/gradient.json.
"""

import argparse
import json
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

import stbp
from stbp import nn
from stbp.config import FILELESS
from stbp.experiments.datasets import for_experiment
from stbp.files import write_json
from stbp.ops.spikes import Spikes
from stbp.train import runs

SAMPLES = 500
FILE = Path(__file__).resolve().parent.parent / "results" / "reach" / "gradient.json"


def gradient_reach(net: nn.Network, x: Tensor | Spikes, y: Int64[Tensor, " B"]) -> Float[Tensor, " T"]:
    """Norm of the gradient of the last step's error with respect to the first neurons' current 0..T-1 steps earlier.

    The error is the paper's for one step, 1/2 sum_i (y_i - o_i)^2, mean over samples, with y one-hot; the norm is over
    samples and neurons. With gate `spatial` nothing but k = 0 has a gradient.

    Args:
        net: a network that begins with a synapse, as `nn.build` makes.
        x: input `[T, B, ...]`.
        y: class indices.
    """
    first, *others = net
    with torch.no_grad():
        current = first(x)
    passed = current.requires_grad_()
    for layer in others:
        passed = layer(passed)
    o = passed[-1]
    target = torch.zeros_like(o).scatter_(1, y[:, None], 1.0)
    error = ((target - o) ** 2).sum() / (2 * len(y))
    (gradient,) = torch.autograd.grad(error, current)
    return gradient.flatten(1).norm(dim=1).flip(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    networks = json.loads(FILE.read_text())["networks"] if FILE.exists() else {}
    for folder in args.runs:
        run = stbp.load_run(folder)
        e = run.experiment
        _, test_set = for_experiment(e, None if e.dataset in FILELESS else args.data)
        ids = torch.arange(min(SAMPLES, len(test_set)))
        x, y = test_set.window(ids, 0, torch.device("cpu")), test_set.labels[ids]
        norms = gradient_reach(run.network, x, y).tolist()
        networks[e.name] = {
            "experiment": e.flat(),
            "test_accuracy": run.test_accuracy,
            "samples": len(y),
            # of k = 0, 1, ... steps back; `relative` to k = 0
            "norm": norms,
            "relative": [norm / norms[0] if norms[0] else None for norm in norms],
        }
        print(e.name, "  ".join(f"{norm:.2g}" for norm in norms))
    FILE.parent.mkdir(parents=True, exist_ok=True)
    command = "python research/gradient_reach.py RUN... --data DIR"
    write_json(FILE, {"command": command, "commit": runs.commit(), "networks": networks})


if __name__ == "__main__":
    main()
