"""How a training tells what it does: a live bar on a terminal, one line per epoch elsewhere; and Ctrl-C."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol, runtime_checkable

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@runtime_checkable
class Reporter(Protocol):
    """What `fit` tells of its progress."""

    def say(self, text: str) -> None:
        """One line that must not be missed."""

    def start_epoch(self, epoch: int, epochs: int, steps: int, done: int) -> None:
        """Epoch `epoch` of `epochs` begins; `done` of its `steps` were made before a resume."""

    def steps(self, done: int, loss: float, accuracy: float) -> None:
        """So many steps are made; mean loss and accuracy of the epoch so far."""

    def end_epoch(self, metrics: dict[str, Any], epochs: int) -> None:
        """The epoch's metrics are known."""


class Silent:
    """Tells nothing."""

    def say(self, text: str) -> None:
        pass

    def start_epoch(self, epoch: int, epochs: int, steps: int, done: int) -> None:
        pass

    def steps(self, done: int, loss: float, accuracy: float) -> None:
        pass

    def end_epoch(self, metrics: dict[str, Any], epochs: int) -> None:
        pass


class Console:
    """Tells it on standard error."""

    def __init__(self) -> None:
        self.console = RichConsole(file=sys.stderr, highlight=False, soft_wrap=True)
        self.bar: Progress | None = None

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def start_epoch(self, epoch: int, epochs: int, steps: int, done: int) -> None:
        if not self.console.is_terminal:
            return
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  accuracy {task.fields[accuracy]:.2f} %"),
            TextColumn("{task.fields[rate]:.0f} steps/s"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.bar.add_task("", total=steps, completed=done, epoch=f"{epoch}/{epochs}", loss=0.0, accuracy=0.0, rate=0.0)
        self.bar.start()

    def steps(self, done: int, loss: float, accuracy: float) -> None:
        if self.bar is not None:
            task = self.bar.tasks[0]
            self.bar.update(task.id, completed=done, loss=loss, accuracy=100 * accuracy, rate=task.speed or 0.0)

    def end_epoch(self, metrics: dict[str, Any], epochs: int) -> None:
        self.close()
        validation = metrics["validation_accuracy"]
        held_out = "" if validation is None else f"  validation {100 * validation:.2f} %"
        self.say(
            f"epoch {metrics['epoch']}/{epochs}  loss {metrics['train_loss']:.4f}  "
            f"train {100 * metrics['train_accuracy']:.2f} %{held_out}  test {100 * metrics['test_accuracy']:.2f} %  "
            f"{metrics['seconds']:.1f} s  {metrics['samples_per_second']:.0f} samples/s"
        )

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


@contextlib.contextmanager
def stop_requests(say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C (or SIGTERM) into a request that the loop reads between two steps; a second one interrupts.

    An interrupt inside an optimiser's step would leave weights that no resume could equal.
    """
    requested = False

    def handle(signum: int, frame: FrameType | None) -> None:
        nonlocal requested
        if requested:
            raise KeyboardInterrupt
        requested = True
        say("stopping after this step (once more: at once)")

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
