"""`fit`: the training loop, readable from top to bottom.

Samples are a pair `(x, y)` of tensors, anything that keeps `stbp.data.DataSet`, a `torch.utils.data.Dataset` or a
`DataLoader`. `x` holds windows `[N, T, ...]`, sample first, as do the items of a Dataset (`[T, ...]`) and the batches
of a DataLoader (`[B, T, ...]`); the network gets them time first. With `T=10` a pair, or an `ImageSet`, holds images
`[N, ...]`, uint8 or float in [0, 1], which become windows by `encoding`. `y` holds class numbers, int64.

A DataLoader decides order, batch size and workers itself. Its generator and torch's random numbers are set anew in
every epoch and batch, so a resumed run equals one never stopped, unless its samples depend on random numbers of others
than torch.

Steps run in training mode, all else in evaluation mode; afterwards the network is in the mode that it had. What torch
draws in a step (Dropout) follows from seed, epoch and step alone, and torch's own random numbers are left as they were.
With `average`, what is evaluated and returned is a copy of the network that holds the averaged weights.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from stbp.config import Experiment, Optimizer, Own, Window, names
from stbp.nn.record import evaluating, record
from stbp.ops import native
from stbp.train import health, runs
from stbp.train.checkpoint import Checkpoint
from stbp.train.cuda_graph import StepGraph, check
from stbp.train.epoch import Progress
from stbp.train.evaluate import Run, device_called, predictions
from stbp.train.optimizer import Make
from stbp.train.progress import Console, Reporter, stop_requests
from stbp.train.runs import Settings
from stbp.train.source import Given, Sampled, Source, open_pair
from stbp.train.step import Learner, Loss

PROBE = 100  # training samples whose spikes tell the firing rates and the health of an epoch
# Between two looks at losses and norms, which wait for the device; with a graph there is one, at the epoch's end.
REPORT_SECONDS = 0.5
FIRST_LOOKS = (0, 100)  # steps of the training at which the health is examined


def fit(
    net: torch.nn.Module,
    train: Given,
    test: Given,
    settings: Settings | None = None,
    *,
    loss: str | Loss | None = None,
    optimizer: str | Make | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    graph: bool = False,
    report: Reporter | None = None,
    after_epoch: Callable[[dict[str, Any]], object] | None = None,
    **fields: Any,
) -> Run:
    """Train a network in place, evaluate it after every epoch, and return what came out.

    Args:
        net: any module that maps a window `[T, B, ...]` to `[T, B, K]`; the answer is the output with the largest sum.
        train, test: the samples, as said above.
        settings: what the fields replace; by default those of `stbp.config.Own`.
        loss: a name, or a function from output spikes `[T, B, K]` and class numbers `[B]` to a scalar.
        optimizer: a name, or a function from parameters to an optimiser, whose learning rates the schedule scales.
        out: folder for config, metrics, checkpoint and summary; None writes nothing.
        resume: go on with the run in `out`, bit for bit as if it had not been stopped.
        device: `auto` (CUDA if there is one), `cpu` or `cuda`.
        graph: replay each step as one CUDA graph, `stbp.train.cuda_graph`; no GPU has run this yet.
        report: gets the progress; the console by default.
        after_epoch: called with the metrics of every epoch; returns True to stop the training.
        fields: fields of `stbp.config.Training`, as `epochs=5`; with images of `stbp.config.Window`, as `T=10`.

    Raises:
        ValueError: settings, data, `net` or `out` do not go together; `DivergedError` if numbers overflow.
        KeyboardInterrupt: on Ctrl-C, after a checkpoint was written.
    """
    report, folder = report or Console(), None if out is None else Path(out)
    if resume and folder is None:
        raise ValueError("resume has no effect without out, the folder of the run to go on with")
    settings = _settings(net, train, settings, loss, optimizer, fields)
    where = device_called(device)
    native.kernels()  # a wrong STBP_KERNELS is no fault of the network's
    with _left_as_found(net, where):
        net.to(where)
        how = settings.window if isinstance(settings, Own) else None
        sources = open_pair(train, test, settings.training, how, where)
        shape, classes = _check_fits(net, sources[0], settings)
        learner, recorded = _learner(net, settings, loss, optimizer, sources[0], where, graph)
        loop = _Loop(settings, learner, *sources, where, folder, report, after_epoch, recorded, shape, classes)
        saved = None if folder is None else runs.claim(folder, settings, resume, report.say)
        if saved is not None:
            loop.restore(saved)
        try:
            with stop_requests(report.say) as stop:
                loop.run(stop)
        finally:
            report.close()
        return loop.finish()


def _settings(
    net: torch.nn.Module,
    train: Given,
    settings: Settings | None,
    loss: str | Loss | None,
    optimizer: str | Make | None,
    fields: dict[str, Any],
) -> Settings:
    """All that decides the run, as config.json holds it; options without effect are errors."""
    for name, value in (("loss", loss), ("optimizer", optimizer)):
        if isinstance(value, str):
            fields[name] = value
        elif value is not None:
            fields[f"own_{name}"] = getattr(value, "__qualname__", type(value).__qualname__)
    if isinstance(train, DataLoader) and "batch_size" in fields:
        raise ValueError("batch_size has no effect on a DataLoader, which has its own; omit it")
    useless = [name for name in names(Optimizer) if name != "average" and name in fields and callable(optimizer)]
    if useless:
        raise ValueError(f"{useless[0]} has no effect with an optimizer of your own; omit it")
    if settings is not None:
        return settings.replace(**fields)
    if "T" not in fields and (given := [name for name in names(Window) if name in fields]):
        raise ValueError(f"{given[0]} is for images, which also need T, the number of time steps")
    return Own.of(name=type(net).__name__, **fields)


def _learner(
    net: torch.nn.Module,
    settings: Settings,
    loss: str | Loss | None,
    optimizer: str | Make | None,
    train: Source,
    device: torch.device,
    graph: bool,
) -> tuple[Learner, StepGraph | None]:
    """The learner that takes the steps, and the graph of a step where one is asked for."""
    own_loss = None if isinstance(loss, str) else loss
    make = None if isinstance(optimizer, str) else optimizer
    samples = check(settings.training, train, device) if graph else None
    rate = None if samples is None else torch.zeros((), device=device)
    learner = Learner(net, settings.training, own_loss, make, rate)
    return learner, None if samples is None else StepGraph(samples, learner)


@contextlib.contextmanager
def _left_as_found(net: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """Give back each module's mode, and torch's random numbers."""
    modes = [(module, module.training) for module in net.modules()]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


def _check_fits(net: torch.nn.Module, train: Source, settings: Settings) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Try one sample, so that a network that does not fit the data fails before the first batch.

    Returns:
        shape of the input in one step, and the names of the classes.
    """
    x, _ = train.some(1)
    shape = tuple(x.shape[2:])
    what = f"{settings.name} does not fit the data"
    if isinstance(settings, Experiment):
        what = f"network {settings.model.network} does not fit {settings.data.dataset}"
    sizes = f"whose samples are {' x '.join(map(str, shape))}{' (C x H x W)' if len(shape) == 3 else ''}"
    try:
        with torch.no_grad(), evaluating(net):
            o = net(x)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{what}, {sizes}: {error}") from error
    if o.dim() != 3 or o.shape[:2] != x.shape[:2]:
        raise ValueError(f"{what}, {sizes}: for x {list(x.shape)} it must give [T, B, K]; got {list(o.shape)}")
    outputs = o.shape[2]
    classes = train.classes or tuple(map(str, range(outputs)))
    if outputs != len(classes):
        raise ValueError(f"{what}: it ends in {outputs} outputs, the data has {len(classes)} classes")
    low, high = (int(part) for part in train.samples.labels.aminmax()) if isinstance(train, Sampled) else (0, 0)
    if not 0 <= low <= high < outputs:
        raise ValueError(f"{what}: it ends in {outputs} outputs, so classes are 0..{outputs - 1}; got {low}..{high}")
    readout = settings.training.readout
    if readout is not None and readout >= len(o):
        raise ValueError(f"readout must be less than the {len(o)} steps of the output; got {readout}")
    return shape, classes


@dataclasses.dataclass
class _Loop:
    """One training in progress."""

    settings: Settings
    learner: Learner
    train: Source
    validation: Source
    test: Source
    device: torch.device
    folder: Path | None
    report: Reporter
    after_epoch: Callable[[dict[str, Any]], object] | None
    graph: StepGraph | None
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    progress: Progress = dataclasses.field(default_factory=Progress)
    trained: bool = False

    def __post_init__(self) -> None:
        self.training = self.settings.training
        self.watch = health.Watch(self.learner.net, self.report.say)
        self.commit = runs.commit()  # now, when the code was read, not when the run is over

    def run(self, stop: Callable[[], bool]) -> None:
        """Train until the last epoch, or an early stop; on a stop request write a checkpoint and raise."""
        started, before = time.perf_counter(), self.progress.seconds
        while not self._is_over():
            done = self._train_epoch(stop) and self._end_epoch(stop)
            self.progress.seconds = before + time.perf_counter() - started
            self._save()  # before anything is told of the epoch: telling can fail
            if not done:
                raise KeyboardInterrupt
            metrics = self.progress.history[-1]
            self.report.end_epoch(metrics, self.training.epochs)
            if self.after_epoch is not None and self.after_epoch(metrics) is True:
                self.progress.stopped = True
                self._save()

    def _is_over(self) -> bool:
        progress = self.progress
        last = progress.epoch >= self.training.epochs
        return last or progress.stopped or progress.out_of_patience(self.training.patience)

    def _train_epoch(self, stop: Callable[[], bool]) -> bool:
        """The rest of the running epoch; False if stopped before its end."""
        progress, train, steps = self.progress, self.train, self.train.steps
        self.report.start_epoch(progress.epoch + 1, self.training.epochs, len(train), progress.samples)
        if self.graph is not None and isinstance(train, Sampled):
            self.graph.begin(progress.epoch, train.order(progress.epoch))
        self.learner.net.train()
        batches = train.epoch(progress.epoch, progress.step)
        rows: list[Tensor] = []
        begun = looked = time.perf_counter()
        while progress.step < steps and not stop():
            if not self.trained and self.folder is not None:
                runs.unfinish(self.folder)
            self.trained = True
            rows.append(self._step(batches))
            progress.step += 1
            now = time.perf_counter()
            if self.graph is None and now - looked > REPORT_SECONDS:
                self._account(rows)
                looked = now
        self._account(rows)
        progress.epoch_seconds += time.perf_counter() - begun
        return progress.step == steps

    def _step(self, batches: Iterator[Any]) -> Tensor:
        """One step of the optimiser; returns its row."""
        epoch, step, steps = self.progress.epoch, self.progress.step, self.train.steps
        done = epoch * steps + step
        look = self.watch.look if done in FIRST_LOOKS else None
        if self.graph is not None:
            if look is None and (step + 1) * self.training.batch_size <= len(self.train):
                return self.graph.step(step)
            batches = self.train.epoch(epoch, step)
        x, y = next(batches)
        self.learner.set_rate(self.training.rate_factor(epoch, step / steps))
        return self.learner.step(x, y, self.training.blend(done + 1), look)

    def _account(self, rows: list[Tensor]) -> None:
        """Add the steps since the last look to the epoch's sums, and tell of them."""
        if rows:
            progress = self.progress
            progress.add(rows, self.learner)
            mean = progress.loss_sum / progress.samples
            self.report.advance(progress.samples, mean, progress.correct / progress.samples)

    def _end_epoch(self, stop: Callable[[], bool]) -> bool:
        """Evaluate, write the epoch's metrics down; False if stopped before that was done."""
        accuracies: list[float | None] = []
        for samples in (self.validation, self.test):
            found = list(predictions(self.learner.kept, samples.plain(), self.training.readout, stop))
            if stop():
                return False
            right = sum(int((predicted == y).sum()) for predicted, y in found)
            accuracies.append(right / sum(len(y) for _, y in found) if found else None)
        rates = health.firing_rates(record(self.learner.kept, self.train.some(PROBE)[0]))
        validation, test = accuracies
        self.progress = self.progress.next(self.progress.metrics(validation, test, rates))
        return True

    def _save(self) -> None:
        if self.folder is not None:
            header = runs.header(self.settings, dataclasses.asdict(self.progress), self.device)
            header |= {"shape": list(self.shape), "classes": list(self.classes)}
            runs.write_progress(self.folder, Checkpoint(self.learner.tensors(), header))

    def restore(self, saved: Checkpoint) -> None:
        """Go back to the moment of a checkpoint."""
        self.learner.restore(saved)
        self.progress = Progress(**saved.header["progress"])
        if self._is_over():
            self.report.say(f"the run in {self.folder} is complete")
        else:
            epoch, step = self.progress.epoch + 1, self.progress.step + 1
            self.report.say(f"going on with {self.folder} at epoch {epoch}, step {step}")
        for line in runs.changes(saved, self.device):
            self.report.say(line)

    def finish(self) -> Run:
        """The run's summary, written to its folder and returned; that of a run that was complete already stays."""
        settings, kept, progress = self.settings, self.learner.kept, self.progress
        summary = {} if self.trained or self.folder is None else runs.read_summary(self.folder)
        if not summary:
            findings = health.examine(kept, record(kept, self.train.some(PROBE)[0]))
            for finding in findings:
                self.report.say(f"health at the end: {finding}")
            kernels = self.learner.kernels(*self.train.some(self.training.batch_size))
            sizes = len(self.train), len(self.test)
            summary = runs.summary(
                settings, progress.history, progress.seconds, findings, self.commit, self.device, kernels, *sizes
            )
            if self.folder is not None:
                runs.write_summary(self.folder, summary)
        return Run(settings, kept, progress.history, summary, self.shape, self.classes)
