"""Which parts of the simulated camera a spiking network needs, and how many simulated recordings.

    .venv/bin/python research/simulation_ablation.py --data DIR [--threads N] [--recordings 4000] [--epochs 10]

`nmnist-sim` is trained on simulated recordings of MNIST's training images from number 1000 on, each time with another
camera, or on another number of them by the unchanged one, with as many steps of the optimiser; it is tested on the 900
real recordings that no parameter was fitted to. Nothing is chosen by these figures. Two seeds; differences below a
point are noise. Variants that results/simulation/ablation.json knows already are not trained again.
"""

import argparse
import dataclasses
import json
import logging
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

import stbp
from stbp.camera.camera import Camera, presets
from stbp.camera.dataset import simulate_set, splits_of
from stbp.camera.mnist_simulated import FOLDER, SHOWN
from stbp.data import load
from stbp.data.events import source
from stbp.data.events.sets import NAME
from stbp.files import write_json
from stbp.train import runs
from stbp.train.progress import Silent

FILE = Path(__file__).resolve().parent.parent / "results" / "simulation" / "ablation.json"
SEEDS = (0, 1)
NUMBERS = (1000, 2000, 8000, 16000)
BASE = dataclasses.replace(presets()["n-mnist"], jitter_px=0.5, jitter_ms=3.0)
"""As for `nmnist-sim` itself."""


def cameras() -> dict[str, Camera]:
    """The variants, by what is changed in `BASE`."""
    replace = dataclasses.replace
    corners = [BASE.path[round(t / 5)] for t in (5, 100, 205, 300)]
    backwards = tuple((BASE.path[-1][0] - t, x, y) for t, x, y in reversed(BASE.path))
    quiet = {"noise": 0.0, "mismatch": 0.0, "background_on_hz": 0.0, "background_off_hz": 0.0}
    return {
        "base": BASE,
        "polarity: light on a dark screen": replace(BASE, ink=False),
        "path: backwards": replace(BASE, path=backwards),
        "path: generic triangle, constant speed": replace(BASE, path=presets()["generic"].path),
        "speed: constant between the corners": replace(BASE, path=tuple(corners)),
        "thresholds: doubled": replace(BASE, threshold_on=2 * BASE.threshold_on, threshold_off=2 * BASE.threshold_off),
        "thresholds: halved": replace(BASE, threshold_on=BASE.threshold_on / 2, threshold_off=BASE.threshold_off / 2),
        "noise: none": replace(BASE, **quiet),
        "jitter: none": replace(BASE, jitter_px=0.0, jitter_ms=0.0),
        "jitter: as measured": presets()["n-mnist"],
    }


def trial(camera: Camera, number: int, epochs: int, data: Path) -> dict[str, Any]:
    """Simulate, train with every seed, and test on real recordings."""
    real = source.find(data)
    assert real is not None, f"{data} holds no {NAME}"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / NAME).symlink_to(real[0].parent.resolve())
        splits = splits_of(load("mnist", data), (SHOWN, SHOWN + number), (SHOWN, SHOWN + 1))
        made = simulate_set(splits, Path(folder) / FOLDER, camera)
        found = [
            stbp.fit("nmnist-sim", data=folder, report=Silent(), seed=seed, epochs=epochs, validation=200).history[-1]
            for seed in SEEDS
        ]
    return {
        "recordings": number,
        "epochs": epochs,
        "events": made["counts"]["Train"]["events"] / number,
        "real": [metrics["test_accuracy"] for metrics in found],
        "simulated_held_out": [metrics["validation_accuracy"] for metrics in found],
        "commit": runs.commit(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--recordings", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    if args.threads:
        torch.set_num_threads(args.threads)
    found: dict[str, Any] = json.loads(FILE.read_text())["variants"] if FILE.exists() else {}
    pending = [(name, camera, args.recordings) for name, camera in cameras().items()]
    pending += [(f"{number:,} recordings", BASE, number) for number in NUMBERS]
    for name, camera, number in pending:
        if name in found:
            continue
        epochs = max(1, round(args.epochs * args.recordings / number))
        found[name] = trial(camera, number, epochs, args.data)
        print(f"{name}: real {100 * statistics.mean(found[name]['real']):.2f} %", flush=True)
        FILE.parent.mkdir(parents=True, exist_ok=True)
        versions = {"stbp": stbp.__version__, "torch": torch.__version__}
        command = "python research/simulation_ablation.py --data DIR"
        write_json(FILE, {"command": command, "seeds": SEEDS, "variants": found, "versions": versions})


if __name__ == "__main__":
    main()
