"""Progress of a training, and what the steps of the running epoch gave."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stbp.train.step import LOSS, RIGHT, SAMPLES, Learner


class DivergedError(ValueError):
    """The loss, a gradient or a weight is no longer a finite number."""


@dataclass
class Progress:
    """Progress of a training; with weights and optimiser state, all that a checkpoint needs."""

    epoch: int = 0  # epochs finished
    step: int = 0  # steps finished in the running epoch
    loss_sum: float = 0.0  # over the samples of the running epoch, and so on
    correct: int = 0
    samples: int = 0
    epoch_seconds: float = 0.0
    seconds: float = 0.0  # of all sessions so far
    history: list[dict[str, Any]] = field(default_factory=list)
    stopped: bool = False  # `after_epoch` wanted no more

    def add(self, rows: list[Tensor], learner: Learner) -> None:
        """Add the rows of the latest steps to the epoch's sums, and forget them.

        Raises:
            DivergedError: one of their numbers is not finite; the message says which, of which step.
        """
        if not rows:
            return
        table = torch.stack(rows).double().cpu()
        first = self.step - len(rows)
        rows.clear()
        finite = table.isfinite()
        if not finite.all():
            row = int((~finite).any(1).nonzero()[0])
            what = learner.column(int((~finite[row]).nonzero()[0]))
            raise DivergedError(
                f"training diverged in epoch {self.epoch + 1}, step {first + row + 1}: {what} is not finite; "
                f"lower learning_rate (now {learner.first_rates[0]:g})"
            )
        for loss_sum, correct, samples in table[:, [LOSS, RIGHT, SAMPLES]].tolist():
            self.loss_sum += loss_sum
            self.correct += int(correct)
            self.samples += int(samples)

    def metrics(self, validation: float | None, test: float | None, rates: list[float]) -> dict[str, Any]:
        """The line of `metrics.jsonl` for the epoch that has just ended."""
        return {
            "epoch": self.epoch + 1,
            "train_loss": self.loss_sum / self.samples,
            "train_accuracy": self.correct / self.samples,
            "validation_accuracy": validation,
            "test_accuracy": test,
            "seconds": round(self.epoch_seconds, 3),
            "samples_per_second": round(self.samples / self.epoch_seconds, 1),
            "firing_rate": rates,
        }

    def next(self, metrics: dict[str, Any]) -> "Progress":
        """The start of the next epoch."""
        return Progress(epoch=self.epoch + 1, seconds=self.seconds, history=[*self.history, metrics])

    def out_of_patience(self, patience: int | None) -> bool:
        """Return whether validation accuracy has not risen for so many epochs."""
        if patience is None or len(self.history) <= patience:
            return False
        accuracies = [metrics["validation_accuracy"] for metrics in self.history]
        return max(accuracies[-patience:]) <= max(accuracies[:-patience])
