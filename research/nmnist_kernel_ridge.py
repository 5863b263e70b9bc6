"""Kernel ridge regression on event counts of N-MNIST, in the folds of `stbp crossvalidate nmnist-mlp`.

    .venv/bin/python research/nmnist_kernel_ridge.py --data DIR

A recording is the square roots of its event counts per saccade (of 105 ms), polarity and pixel: 3 x 2 x 34 x 34 values.
The kernel is exp(-gamma d^2 / m), d the distance of two recordings and m the mean d^2 of the training recordings; the
targets are 1 for the class and 0 for the others, less their mean. In every fold, gamma and the ridge are those of the
highest leave-one-out accuracy on its training recordings: the tested fold has no say. Writes
results/bench/nmnist-kernel-ridge.json.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stbp.data.events.frames.options import SACCADE_US, FrameOptions
from stbp.data.events.sets import EventSet, joined, load_events
from stbp.data.folds import fold_of
from stbp.experiments.results import FOLDS
from stbp.files import write_json
from stbp.train import runs

GAMMAS = (0.1, 0.3, 1.0, 3.0)
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
OUT = Path(__file__).resolve().parent.parent / "results" / "bench" / "nmnist-kernel-ridge.json"


class Choice(NamedTuple):
    """A setting, and the share of training recordings that the others label rightly with it."""

    accuracy: float
    gamma: float
    ridge: float


def roots(recordings: EventSet) -> Tensor:
    """Square roots of the counts, float64 `[N, 3*2*34*34]`."""
    options = FrameOptions(step_us=SACCADE_US, counts=True)
    parts = torch.arange(len(recordings)).split(100)
    frames = [recordings.frames(ids, 3, options) for ids in parts]
    return torch.cat([f.transpose(0, 1).flatten(1) for f in frames if isinstance(f, Tensor)]).double().sqrt()


def choose(distances: Tensor, labels: Tensor, targets: Tensor) -> Choice:
    """The best setting by leave-one-out on `n` training recordings, of which `distances [n, n]` are squared and scaled.

    The prediction for a recording without it, exactly: y - c / diag(G^-1) with G = K + ridge, c = G^-1 y (Rasmussen and
    Williams, Gaussian Processes for Machine Learning, 2006, eq. 5.12).
    """
    found = []
    for gamma in GAMMAS:
        values, vectors = torch.linalg.eigh((-gamma * distances).exp())
        for ridge in RIDGES:
            inverse = vectors / (values + ridge) @ vectors.T
            left_out = targets - inverse @ targets / inverse.diagonal()[:, None]
            found.append(Choice((left_out.argmax(1) == labels).double().mean().item(), gamma, ridge))
    return max(found, key=lambda choice: choice.accuracy)


def fold(x: Tensor, labels: Tensor, tested: Tensor) -> tuple[float, Choice]:
    """Accuracy on the recordings `tested [N]`, of what the others chose and learnt."""
    squared = torch.cdist(x, x[~tested]).square()
    squared /= squared[~tested].mean()
    one_hot = torch.nn.functional.one_hot(labels[~tested]).double()
    targets = one_hot - one_hot.mean(0)
    best = choose(squared[~tested], labels[~tested], targets)
    kernel = (-best.gamma * squared).exp()
    weights = torch.linalg.solve(kernel[~tested] + best.ridge * torch.eye(len(targets), dtype=x.dtype), targets)
    called = (kernel[tested] @ weights + one_hot.mean(0)).argmax(1)
    return (called == labels[tested]).double().mean().item(), best


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    commit = runs.commit()
    recordings = joined(*load_events(data=args.data))
    x, of = roots(recordings), fold_of(recordings.labels, FOLDS)
    folds = [fold(x, recordings.labels, of == k) for k in range(FOLDS)]
    accuracies = [accuracy for accuracy, _ in folds]
    result: dict[str, Any] = {
        "command": "python research/nmnist_kernel_ridge.py --data DIR",
        "test_accuracy": accuracies,
        "folds": FOLDS,
        "samples": len(recordings),
        "chosen": [choice._asdict() for _, choice in folds],
        "grid": {"gamma": GAMMAS, "ridge": RIDGES},
        "versions": runs.versions(),
        "commit": commit,
    }
    write_json(OUT, result)
    mean, deviation = (100 * f(accuracies) for f in (statistics.mean, statistics.stdev))
    print(f"test accuracy {mean:.2f} ± {deviation:.2f} % over {FOLDS} folds, {len(recordings):,} samples")


if __name__ == "__main__":
    main()
