"""Does a subject compute what the reference computes? Nothing of ours is timed that does not."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stbp.bench.subject import Entry, Subject, Task, Weights, ours_dense
from stbp.bench.work import grid_task, on_grid
from stbp.ops import dispatch

# Relative, per parameter: on the grid all masks are equal and float32 rounding alone is left; elsewhere one neuron at
# the edge of the window costs up to 1e-4 of a layer's norm, one spike more.
TOLERANCE, ONE_SPIKE, FEW_SPIKES = 1e-4, 1e-2, 1e-3


@dataclass(frozen=True)
class Difference:
    """From the reference: the share of output spikes that differ, the largest relative error of a gradient."""

    spikes: float
    gradient: float

    @property
    def equal(self) -> bool:
        return self.spikes == 0 and self.gradient <= TOLERANCE


def difference(o: Tensor, gradients: list[Tensor], reference: tuple[Tensor, list[Tensor]]) -> Difference:
    """Difference of spikes and gradients to the reference's; where its gradient is zero, any other is infinite."""
    errors = [
        ((g - r).norm() / r.norm()).nan_to_num(0.0, posinf=math.inf)
        for g, r in zip(gradients, reference[1], strict=True)
    ]
    return Difference((o != reference[0]).float().mean().item(), torch.stack(errors).max().item())


@dataclass(frozen=True)
class Equality:
    """On the grid, where equality is exact (not asked of compiled peers), and with the timed weights."""

    grid: Difference | None
    timed: Difference

    def verdict(self, note: str) -> str:
        found = self.grid or self.timed
        if found.equal:
            return "equal"
        parts = [f"{_per_cent(found.spikes)} of output spikes"] if found.spikes else []
        parts += [f"gradient by {_per_cent(found.gradient)}"] if found.gradient > TOLERANCE else []
        return "differs: " + ", ".join(parts) + (f" ({note})" if note else "")


def _per_cent(share: float) -> str:
    """To three significant digits, whatever its size."""
    return f"{float(f'{100 * share:.3g}'):.9g} %"


class Reference:
    """Answer of the reference to one batch, with the timed weights and on the grid."""

    def __init__(self, task: Task, weights: Weights, x: Tensor, y: Tensor):
        self.task, self.weights, self.x, self.y = task, weights, x, y
        self.timed = _look(ours_dense(task), weights, x, y)
        self.grid = _look(ours_dense(grid_task(task)), on_grid(weights), x, y)

    def compare(self, entry: Entry, subject: Subject) -> Equality:
        """The subject, which is left with the timed weights, against the reference.

        Raises:
            ValueError: it is ours, and not equal: then it is not to be timed.
        """
        timed = difference(*_look(subject, self.weights, self.x, self.y), self.timed)
        grid = None
        if not entry.by_torch:  # another decay is another compilation
            found = _look(entry.build(grid_task(self.task)), on_grid(self.weights), self.x, self.y)
            grid = difference(*found, self.grid)
        if entry.kind in ("ours", "dense") and not (
            grid and grid.equal and timed.spikes <= FEW_SPIKES and timed.gradient <= ONE_SPIKE
        ):
            raise ValueError(
                f"{entry.name} is not timed on {self.task.network}: it does not equal its reference; on a dyadic grid "
                f"{grid}, with the timed weights {timed}; run the tests of stbp/ops"
            )
        return Equality(grid, timed)


def _look(subject: Subject, weights: Weights, x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
    subject.start(weights, 0.0)
    return subject.look(*subject.place(x, y))


def paths_of(action: Callable[[], Any]) -> list[dict[str, Any]]:
    """The path that each layer took while the action ran."""
    with dispatch.watch() as taken:
        action()
    return [{**path._asdict(), "density": None if math.isnan(path.density) else path.density} for path in taken]
