"""Reports of a training: a live bar on a terminal, one line per epoch elsewhere; and Ctrl-C."""

import contextlib
import datetime
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol, runtime_checkable

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


@runtime_checkable
class Reporter(Protocol):
    """Receives the progress of `fit`."""

    def say(self, text: str) -> None:
        """One line that must not be missed."""

    def start_epoch(self, epoch: int, epochs: int, samples: int, done: int) -> None:
        """Epoch `epoch` of `epochs` begins; `done` of its samples were seen before a resume."""

    def advance(self, done: int, loss: float, accuracy: float) -> None:
        """So many samples of the epoch are seen; their mean loss and accuracy."""

    def end_epoch(self, metrics: dict[str, Any], epochs: int) -> None:
        """The epoch's metrics are known."""

    def close(self) -> None:
        """Nothing more will come, whatever ended the training."""


class Silent:
    """Tells nothing."""

    def say(self, text: str) -> None:
        pass

    def start_epoch(self, epoch: int, epochs: int, samples: int, done: int) -> None:
        pass

    def advance(self, done: int, loss: float, accuracy: float) -> None:
        pass

    def end_epoch(self, metrics: dict[str, Any], epochs: int) -> None:
        pass

    def close(self) -> None:
        pass


class _ErrorStream(RichConsole):
    """Standard error; when nobody reads it any more, silence: rich would end the process in the middle of a step."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class Console:
    """Tells it on standard error."""

    def __init__(self) -> None:
        self.console = _ErrorStream(file=sys.stderr, highlight=False, soft_wrap=True)
        self.bar: Progress | None = None
        self.epochs_to_come = 0

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def start_epoch(self, epoch: int, epochs: int, samples: int, done: int) -> None:
        if not self.console.is_terminal:
            return
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TextColumn("{task.fields[pace]}"),
            console=self.console,
            transient=True,
        )
        self.epochs_to_come = epochs - epoch
        self.bar.add_task("", total=samples, completed=done, epoch=f"{epoch}/{epochs}", numbers="", pace="")
        self.bar.start()

    def advance(self, done: int, loss: float, accuracy: float) -> None:
        if self.bar is None:
            return
        task = self.bar.tasks[0]
        self.bar.update(task.id, completed=done, numbers=f"loss {loss:.4f}  accuracy {100 * accuracy:.2f} %")
        if task.speed:
            samples = self.epochs_to_come * (task.total or 0) + (task.remaining or 0)
            left = datetime.timedelta(seconds=round(samples / task.speed))
            self.bar.update(task.id, pace=f"{task.speed:,.0f} samples/s  {left} left")

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
