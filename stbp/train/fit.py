"""`fit`: the training loop, readable from top to bottom."""

import copy
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stbp import loss, nn
from stbp.config import Experiment
from stbp.data import DataSet
from stbp.data.folds import validation_split
from stbp.ops import dispatch, native
from stbp.ops.philox import SHUFFLE, random_words
from stbp.ops.spikes import Spikes
from stbp.train import health, runs
from stbp.train.checkpoint import Checkpoint
from stbp.train.cuda_graph import StepGraph, check
from stbp.train.evaluate import Run, batch, build_network, device_called, predict, predictions, read_out
from stbp.train.optimizer import bind_rate, blend, optimizer, set_rate
from stbp.train.penalty import output_and_hidden_rate
from stbp.train.progress import Console, Reporter, stop_requests

PROBE = 100  # training samples whose spikes tell the firing rates and the health of an epoch
# between two looks at losses and norms, which wait for the device; with a graph there is one, at the epoch's end
REPORT_SECONDS = 0.5
FIRST_LOOKS = (0, 100)  # steps of the training at which the health is examined


class DivergedError(ValueError):
    """The loss, a gradient or a weight is no longer a finite number."""


@dataclass
class Progress:
    """How far a training is; with weights and optimiser state, all that a checkpoint needs."""

    epoch: int = 0  # epochs finished
    step: int = 0  # steps finished in the running epoch
    loss_sum: float = 0.0  # over the samples of the running epoch, and so on
    correct: int = 0
    samples: int = 0
    epoch_seconds: float = 0.0
    seconds: float = 0.0  # of all sessions so far
    history: list[dict[str, Any]] = field(default_factory=list)


def fit(
    experiment: Experiment,
    train_set: DataSet,
    test_set: DataSet,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    graph: bool = False,
    report: Reporter | None = None,
) -> Run:
    """Train an experiment, evaluate it after every epoch, and return what came out.

    Args:
        train_set, test_set: the samples that it trains on and is tested on.
        out: folder for config, metrics, checkpoint and summary; None writes nothing.
        resume: go on with the run in `out`, bit for bit as if it had not been stopped.
        device: `auto` (CUDA if there is one), `cpu` or `cuda`.
        graph: replay each step as one CUDA graph, `stbp.train.cuda_graph`; no GPU has run this yet.
        report: gets the progress; the console by default.

    Raises:
        ValueError: a field, a data file or the folder `out` is not as it must be; `DivergedError` if numbers overflow.
        KeyboardInterrupt: on Ctrl-C, after a checkpoint was written.
    """
    report = report or Console()
    folder = None if out is None else Path(out)
    if resume and folder is None:
        raise ValueError("resume has no effect without out, the folder of the run to go on with")
    training = _Training(experiment, train_set, test_set, device_called(device), graph, folder, report)
    saved = None if folder is None else runs.claim(folder, experiment, resume, report.say)
    if saved is not None:
        training.restore(saved)
    try:
        with stop_requests(report.say) as stop:
            training.run(stop)
    finally:
        report.close()
    return training.finish()


class _Training:
    """One training in progress: data, network, optimiser and how far it is."""

    def __init__(
        self,
        experiment: Experiment,
        train_set: DataSet,
        test_set: DataSet,
        device: torch.device,
        graph: bool,
        folder: Path | None,
        report: Reporter,
    ):
        self.experiment, self.train_set, self.test_set = experiment, train_set, test_set
        self.device, self.folder, self.report = device, folder, report
        self.progress = Progress()
        self.training_ids, self.validation_ids = validation_split(len(train_set), experiment)
        self.net = build_network(experiment, train_set.rate(experiment))
        native.kernels()  # a wrong STBP_KERNELS is no fault of the network's
        self._check_shapes()
        self.net.to(device)
        # what is evaluated and kept: the network that learns, or one with the mean of its weights over the steps
        self.kept = self.net if experiment.average is None else copy.deepcopy(self.net)
        self.graph = self._graph() if graph else None
        self.optimizer = optimizer(experiment, self.net, self.graph and self.graph.rate)
        self.synapses = [i for i, m in enumerate(self.net) if isinstance(m, nn.Linear | nn.Conv2d)]
        self.findings: list[health.Finding] = []
        self.commit = runs.commit()  # now, when the code was read, not when the run is over
        self.trained = False

    def _graph(self) -> StepGraph:
        samples = check(self.experiment, self.train_set, self.device)
        return StepGraph(self.experiment, samples, self.steps, self.device, self._state, self._learn)

    def _state(self) -> list[Tensor]:
        """All that a step changes."""
        kept = [] if self.kept is self.net else list(self.kept.parameters())
        return [*self.net.parameters(), *kept, *(v for s in self.optimizer.state.values() for v in s.values())]

    def _check_shapes(self) -> None:
        """Try one blank sample, so that a network that does not fit the data fails before the first batch."""
        shape = self.train_set.shape
        what = f"network {self.experiment.network} does not fit {self.experiment.dataset}"
        try:
            outputs = self.net(torch.zeros(1, 1, *shape)).shape[-1]
        except ValueError as error:
            raise ValueError(f"{what}, whose samples are {' x '.join(map(str, shape))} (C x H x W): {error}") from error
        if outputs != len(self.train_set.classes):
            raise ValueError(
                f"{what}: it ends in {outputs} outputs, the data has {len(self.train_set.classes)} classes"
            )
        if self.experiment.rate_penalty and sum(isinstance(module, nn.LIF) for module in self.net) < 2:
            raise ValueError(
                f"rate_penalty has no effect on network {self.experiment.network}, which has no hidden layer; "
                "leave it away"
            )

    @property
    def steps(self) -> int:
        return -(-len(self.training_ids) // self.experiment.batch_size)

    def run(self, stop: Callable[[], bool]) -> None:
        """Train until the last epoch, or the early stop; on a stop request write a checkpoint and raise."""
        started, before = time.perf_counter(), self.progress.seconds
        while self.progress.epoch < self.experiment.epochs and not self._out_of_patience():
            done = self._train_epoch(stop) and self._end_epoch(stop)
            self.progress.seconds = before + time.perf_counter() - started
            self._save()  # before anything is told of the epoch: telling can fail
            if not done:
                raise KeyboardInterrupt
            self.report.end_epoch(self.progress.history[-1], self.experiment.epochs)

    def _train_epoch(self, stop: Callable[[], bool]) -> bool:
        """The rest of the running epoch; False if stopped before its end."""
        progress, size = self.progress, self.experiment.batch_size
        self.report.start_epoch(progress.epoch + 1, self.experiment.epochs, len(self.training_ids), progress.samples)
        words = random_words(len(self.training_ids), self.experiment.seed, SHUFFLE, progress.epoch)
        order = self.training_ids[words.argsort(stable=True)]
        if self.graph is not None:
            self.graph.begin(progress.epoch, order)
        pending: list[Tensor] = []
        begun = looked = time.perf_counter()
        while progress.step < self.steps and not stop():
            if not self.trained and self.folder is not None:
                runs.unfinish(self.folder)
            self.trained = True
            ids = order[progress.step * size : (progress.step + 1) * size]
            pending.append(self._step(ids))
            progress.step += 1
            now = time.perf_counter()
            if self.graph is None and now - looked > REPORT_SECONDS:
                self._account(pending)
                looked = now
        self._account(pending)
        progress.epoch_seconds += time.perf_counter() - begun
        return progress.step == self.steps

    def _step(self, ids: Tensor) -> Tensor:
        """One step of the optimiser; returns loss, right answers, samples and the norms of gradients and weights."""
        progress = self.progress
        done = progress.epoch * self.steps + progress.step
        if self.graph is not None and done not in FIRST_LOOKS and len(ids) == self.experiment.batch_size:
            return self.graph.step(progress.step)
        x, y = batch(self.experiment, self.train_set, ids, progress.epoch + 1, self.device)
        set_rate(self.optimizer, self.experiment.learning_rate_at(progress.epoch, progress.step / self.steps))
        return self._learn(x, y, blend(self.experiment, done + 1), look=done in FIRST_LOOKS)

    def _learn(self, x: Tensor | Spikes, y: Tensor, share: float | Tensor, look: bool = False) -> Tensor:
        self.optimizer.zero_grad()
        o, batch_loss = self._loss(x, y)
        batch_loss.backward()
        if look:
            self._look(x)
        gradients = [p.grad.norm() for p in self.net.parameters() if p.grad is not None]
        self.optimizer.step()
        with torch.no_grad():
            if self.kept is not self.net:
                for mean, weight in zip(self.kept.parameters(), self.net.parameters(), strict=True):
                    mean.lerp_(weight, share)
            weights = [p.norm() for p in self.net.parameters()]
            right = (predict(o) == y).sum()
            return torch.stack([batch_loss.detach() * len(y), right, right.new_full((), len(y)), *gradients, *weights])

    def _loss(self, x: Tensor | Spikes, y: Tensor) -> tuple[Tensor, Tensor]:
        """The output spikes that count, and what training makes small."""
        e, loss_of = self.experiment, getattr(loss, self.experiment.loss)
        if e.rate_penalty == 0:
            o = read_out(self.net(x), e)
            return o, loss_of(o, y)
        all_steps, rate = output_and_hidden_rate(self.net, x)
        o = read_out(all_steps, e)
        return o, loss_of(o, y) + e.rate_penalty * rate

    def _account(self, pending: list[Tensor]) -> None:
        """Add the steps since the last look to the epoch's sums, and stop if one of their numbers is not finite."""
        if not pending:
            return
        rows = torch.stack(pending).double().cpu()
        first = self.progress.step - len(pending)
        pending.clear()
        finite = rows.isfinite()
        if not finite.all():
            row = int((~finite).any(1).nonzero()[0])
            raise self._diverged(first + row, int((~finite[row]).nonzero()[0]))
        for loss_sum, correct, samples in rows[:, :3].tolist():
            self.progress.loss_sum += loss_sum
            self.progress.correct += int(correct)
            self.progress.samples += int(samples)
        mean = self.progress.loss_sum / self.progress.samples
        self.report.advance(self.progress.samples, mean, self.progress.correct / self.progress.samples)

    def _diverged(self, step: int, column: int) -> DivergedError:
        names = [name for name, _ in self.net.named_parameters()]
        what = "the loss"
        if column >= 3:
            index, _, part = names[(column - 3) % len(names)].partition(".")
            what = f"the {part} of {self.net.name(int(index))}"
            if column - 3 < len(names):
                what = f"the gradient of {what}"
        return DivergedError(
            f"training diverged in epoch {self.progress.epoch + 1}, step {step + 1}: {what} is not finite; "
            f"lower learning_rate (now {self.experiment.learning_rate:g})"
        )

    def _look(self, x: Tensor | Spikes) -> None:
        """Examine the health after the backward pass of a batch and say what was not said before."""
        gradients = []
        for index in self.synapses:
            weight = self.net.get_parameter(f"{index}.weight")
            gradients.append((index, 0.0 if weight.grad is None else weight.grad.norm().item()))
        known = {(finding.layer, finding.kind) for finding in self.findings}
        for finding in health.examine(self.net, self.net.record(x), gradients, early=True):
            if (finding.layer, finding.kind) not in known:
                self.findings.append(finding)
                self.report.say(f"health: {finding}")

    def _end_epoch(self, stop: Callable[[], bool]) -> bool:
        """Evaluate, write the epoch's metrics down; False if stopped before that was done."""
        progress = self.progress
        accuracies = []
        for samples, ids in ((self.train_set, self.validation_ids), (self.test_set, torch.arange(len(self.test_set)))):
            found = list(predictions(self.kept, self.experiment, samples, ids, stop))
            if stop():
                return False
            right = sum(int((p == y).sum()) for p, y in found)
            accuracies.append(right / len(ids) if len(ids) else None)
        traces = self._probe()
        metrics = {
            "epoch": progress.epoch + 1,
            "train_loss": progress.loss_sum / progress.samples,
            "train_accuracy": progress.correct / progress.samples,
            "validation_accuracy": accuracies[0],
            "test_accuracy": accuracies[1],
            "seconds": round(progress.epoch_seconds, 3),
            "samples_per_second": round(progress.samples / progress.epoch_seconds, 1),
            "firing_rate": health.firing_rates(traces),
        }
        history = [*progress.history, metrics]
        self.progress = Progress(epoch=progress.epoch + 1, seconds=progress.seconds, history=history)
        return True

    def _probe(self) -> list[nn.Trace]:
        x, _ = batch(self.experiment, self.train_set, self.training_ids[:PROBE], 0, self.device)
        return self.kept.record(x)

    def _kernels(self) -> dict[str, dict[str, str]]:
        """The path that each synapse takes forward and backward, on a batch of the training set."""
        x, y = batch(self.experiment, self.train_set, self.training_ids[: self.experiment.batch_size], 0, self.device)
        with dispatch.watch() as seen:
            batch_loss = self._loss(x, y)[1]
            torch.autograd.grad(batch_loss, list(self.net.parameters()))
        taken = {self.net.name(index): {"forward": "reference"} for index in self.synapses}
        for path in seen:
            if path.layer.isdigit():
                taken[self.net.name(int(path.layer))][path.step] = path.kernel
        return taken

    def _out_of_patience(self) -> bool:
        patience, history = self.experiment.patience, self.progress.history
        if patience is None or len(history) <= patience:
            return False
        accuracies = [metrics["validation_accuracy"] for metrics in history]
        return max(accuracies[-patience:]) <= max(accuracies[:-patience])

    def _save(self) -> None:
        if self.folder is not None:
            runs.write_progress(self.folder, Checkpoint(self._tensors(), self._header()))

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"network.{name}": tensor for name, tensor in self.kept.state_dict().items()}
        if self.kept is not self.net:
            tensors |= {f"live.{name}": tensor for name, tensor in self.net.state_dict().items()}
        for parameter, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{parameter}.{k}": v for k, v in state.items() if v is not None}
        return tensors

    def _header(self) -> dict[str, Any]:
        return {
            "experiment": dataclasses.asdict(self.experiment),
            "progress": dataclasses.asdict(self.progress),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "device": self.device.type,
            "shape": list(self.train_set.shape),
            "classes": list(self.train_set.classes),
        }

    def restore(self, saved: Checkpoint) -> None:
        """Go back to the moment of a checkpoint."""
        self.kept.load_state_dict(runs.part(saved, "network"))
        if self.kept is not self.net:
            self.net.load_state_dict(runs.part(saved, "live"))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in runs.part(saved, "optimizer").items():
            parameter, _, key = name.partition(".")
            state.setdefault(int(parameter), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        if self.graph is not None:
            bind_rate(self.optimizer, self.graph.rate)
        self.progress = Progress(**saved.header["progress"])
        done = self.progress
        if done.epoch == self.experiment.epochs or self._out_of_patience():
            self.report.say(f"the run in {self.folder} is complete")
        else:
            self.report.say(f"going on with {self.folder} at epoch {done.epoch + 1}, step {done.step + 1}")
        for name, now in (
            ("threads", torch.get_num_threads()),
            ("torch", torch.__version__),
            ("device", self.device.type),
        ):
            if saved.header.get(name, now) != now:
                self.report.say(
                    f"the run was begun with {name} {saved.header[name]}, now {now}: sums may round differently"
                )

    def finish(self) -> Run:
        """The run's summary, written to its folder and returned; that of a run that was complete already stays."""
        summary = {} if self.trained or self.folder is None else runs.read(self.folder)[2]
        if not summary:
            findings = health.examine(self.kept, self._probe())
            for finding in findings:
                self.report.say(f"health at the end: {finding}")
            progress = self.progress
            summary = runs.summary(
                self.experiment,
                progress.history,
                progress.seconds,
                findings,
                self.commit,
                self.device,
                self._kernels(),
                len(self.training_ids),
                len(self.test_set),
            )
            if self.folder is not None:
                runs.write_summary(self.folder, summary)
        shape, classes = self.train_set.shape, self.train_set.classes
        return Run(self.experiment, self.kept, self.progress.history, summary, shape, classes)
