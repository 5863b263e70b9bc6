"""Which trained networks are measured beyond the paper (`stbp.beyond`), where that is kept, and how it reads."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table as Grid

from stbp.config import Experiment
from stbp.experiments import results
from stbp.experiments.registry import experiments

NAME = "inference"  # of `stbp reproduce`
COMMAND = f"stbp reproduce {NAME} --data DIR"
NOT_COUNTED = (
    "Counted are the additions of weights alone: not the memory traffic that fetches them, not the updates of all "
    "neurons and biases in each of the T steps, not the state that is kept through T steps, and a twin that skips its "
    "zeros would save too."
)


def studied() -> tuple[Experiment, ...]:
    """The experiments whose network of seed 0 is measured."""
    return tuple(experiments()[name] for name in ("mnist-mlp-400-tuned", "mnist-cnn-tuned"))


def path(experiment: Experiment, folder: Path) -> Path:
    """Where the measurements of an experiment lie in a folder of results."""
    return folder / "beyond" / f"{results.file_name(experiment)}.json"


def read(experiment: Experiment, folders: Sequence[Path]) -> dict[str, Any] | None:
    """The measurements in the first folder that has them; None where they were not made, or of other settings."""
    there = [json.loads(at.read_text()) for at in (path(experiment, folder) for folder in folders) if at.exists()]
    return next((found for found in there if Experiment.of(**found["experiment"]) == experiment.replace(seed=0)), None)


def total(found: dict[str, Any]) -> tuple[float, int]:
    """Synaptic operations and the twin's multiply-accumulates of a whole network, per sample."""
    layers = found["operations"]
    return sum(layer["synaptic"] for layer in layers), sum(layer["twin"] for layer in layers)


def grids(found: dict[str, Any]) -> list[Grid]:
    """The measurements as tables for a terminal."""
    steps, density, layers = (Grid(*names, box=None, padding=(0, 2, 0, 0)) for names in _COLUMNS)
    for step, accuracy in enumerate(found["accuracy_by_step"], start=1):
        steps.add_row(f"{step}", f"{100 * accuracy:.2f}")
    for row in found["density"]:
        density.add_row(f"{row['scale']:g}", f"{100 * row['input_rate']:.1f}", f"{100 * row['accuracy']:.2f}")
    synaptic, twin = total(found)
    for row in (*found["operations"], {"layer": "all", "synaptic": synaptic, "twin": twin}):
        layers.add_row(
            row["layer"], f"{row['synaptic']:,.0f}", f"{row['twin']:,}", f"{row['synaptic'] / row['twin']:.2f}"
        )
    return [steps, density, layers]


_COLUMNS = (
    ("after step", "accuracy, %"),
    ("pixels fire, times", "mean input, %", "accuracy, %"),
    ("synapses", "synaptic operations", "multiply-accumulates of the twin", "ratio"),
)
