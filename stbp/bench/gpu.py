"""`stbp bench --device cuda`: training steps end to end, and the neurons alone against the speed of the memory."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stbp.bench import neurons, timing
from stbp.bench.device import event_clock, matrix_rate, most_memory
from stbp.bench.equality import Reference
from stbp.bench.roofline import Rates, least_seconds, work
from stbp.bench.subject import OURS, Entry, Subject, Task, TorchSubject, Weights, ours_in_training
from stbp.bench.work import WARM_STEPS, Source, images_source, mnist, trained
from stbp.graph import beside
from stbp.ops.spikes import Spikes

NETWORKS = ("784-800-10", "28x28-15C5-P2-40C5-P2-300-10", "784-16384-10")

METHOD = {
    "step": "end to end, from uint8 images and labels on the device: encoding by each library's own encoder, forward, "
    "loss, backward, optimiser; between two events of the device around a turn of some steps; learning rate 0, weights "
    f"after {WARM_STEPS} steps of our own training",
    "recorded": "the same step of ours, encoder and optimiser included, replayed as one CUDA graph",
    "memory": "most memory allocated at once by a few steps, above what was before the network was made",
    "neurons": "forward and backward of the neurons alone, of peers that torch.compile did not make; of the copy's "
    f"speed: {neurons.MOVED} bytes for each pass, step and neuron, {neurons.COPIED} for the copy",
    "least": "what our step moves and multiplies (stbp/bench/roofline.py) at the speed of the largest copy and of a "
    "large product in bfloat16 and in float32, measured in this run; a step takes at least the longer of the two",
}


class OnDevice:
    """A subject moved to a device. Ours gets its spikes packed, as its encoder makes them."""

    def __init__(self, subject: TorchSubject, device: torch.device, packs: bool):
        self.subject, self.device, self.packs = subject, device, packs
        subject.module.to(device)

    def start(self, weights: Weights, learning_rate: float) -> None:
        self.subject.start(weights, learning_rate)

    def place(self, x: Tensor, y: Tensor) -> tuple[Any, Tensor]:
        return (Spikes.pack(x).to(self.device) if self.packs else x.to(self.device)), y.to(self.device)

    def step(self, x: Any, y: Tensor) -> None:
        self.subject.step(x, y)

    def infer(self, x: Any) -> None:
        self.subject.infer(x)

    def look(self, x: Any, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        o, gradients = self.subject.look(x, y)
        return o.cpu(), [gradient.cpu() for gradient in gradients]

    def encode(self, images: Tensor, labels: Tensor, ids: Tensor) -> tuple[Any, Tensor]:
        return self.subject.encode(images, labels, ids)


class Batches:
    """Images on a device, and steps of a subject on them, each from the next of them."""

    def __init__(self, source: Source, task: Task, device: torch.device):
        ids = torch.cat([source.ids(step, task.batch) for step in range(10)])
        self.images = source.images[ids].view(-1, *task.shape).to(device)
        self.labels, self.ids = source.labels[ids].to(device), ids.to(device)
        self.batch, self.at = task.batch, 0

    def step(self, subject: Subject) -> None:
        part = slice(self.at, self.at + self.batch)
        self.at = part.stop if part.stop + self.batch <= len(self.ids) else 0
        subject.step(*subject.encode(self.images[part], self.labels[part], self.ids[part]))


class Recorded:
    """A step of ours on one batch as one CUDA graph; it keeps alive what the graph reads and writes."""

    def __init__(self, subject: OnDevice, batches: Batches, weights: Weights):
        self.subject, self.batches = subject, batches
        subject.start(weights, 0.0)
        subject.subject.optimizer = torch.optim.Adam(subject.subject.parameters, lr=0.0, fused=True, capturable=True)
        with beside(subject.device):
            self._step()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._step()

    def _step(self) -> None:
        self.batches.at = 0
        self.batches.step(self.subject)

    def __call__(self) -> None:
        self.graph.replay()


def measure(
    task: Task,
    source: Source,
    subjects: Sequence[Entry],
    rounds: int,
    device: torch.device,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Everything about one network: a row for every subject."""
    weights = trained(task, source)
    x, y = source.spikes(WARM_STEPS, task)
    reference, batches = Reference(task, weights, x, y), Batches(source, task, device)
    rows: dict[str, dict[str, Any]] = {}
    actions: dict[str, Callable[[], object]] = {}
    for entry in subjects:
        row = rows[entry.name] = {"kind": entry.kind, "compiled": entry.compiled, "note": entry.note}
        if not entry.installed or entry.package == "spyx":
            row["status"] = "not installed" if not entry.installed else "left out: XLA has its own GPU build"
            continue
        tell(f"{task.network}: {entry.name}")
        try:
            actions |= _prepare(entry, task, reference, weights, batches, row, device)
        except Exception as error:  # a peer that fails here does not cost the others their numbers
            if entry.kind in ("ours", "dense"):
                raise
            row["status"] = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if device.type == "cuda":
        name = f"{OURS}, recorded"
        rows[name] = {"kind": "ours", "compiled": True, "note": "one CUDA graph a step"}
        ours = next(entry for entry in subjects if entry.name == OURS)
        replay = Recorded(_place(ours, device, task), Batches(source, task, device), weights)
        actions[name] = replay
    clock = event_clock(device)
    expected = {name: timing.warm_up(action, clock=clock)[1] for name, action in actions.items()}
    for name, found in timing.interleave(actions, expected, rounds, [], tell, clock).items():
        rows[name] |= {"status": "timed", "step": dataclasses.asdict(found)}
    return {"task": dataclasses.asdict(task), "input": source.words, "subjects": rows}


def _prepare(
    entry: Entry,
    task: Task,
    reference: Reference,
    weights: Weights,
    batches: Batches,
    row: dict[str, Any],
    device: torch.device,
) -> dict[str, Callable[[], object]]:
    """Compare a subject with the reference, weigh it, and return its step by its name."""
    place = functools.partial(_place, entry, device)
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    subject = place(task)
    if entry.kind != "bound":
        equality = reference.compare(dataclasses.replace(entry, build=place), subject)
        row["equality"] = {"verdict": equality.verdict(entry.note), **dataclasses.asdict(equality)}
    subject.start(weights, 0.0)
    step = functools.partial(batches.step, subject)
    row["memory_mib"] = most_memory(step, device, before)
    return {entry.name: step}


def _place(entry: Entry, device: torch.device, task: Task) -> OnDevice:
    subject = ours_in_training(task) if entry.kind == "ours" else entry.build(task)
    assert isinstance(subject, TorchSubject)
    return OnDevice(subject, device, packs=entry.kind in ("ours", "dense"))


def run(
    subjects: Sequence[Entry],
    rounds: int,
    data: str | Path | None,
    device: torch.device,
    networks: Sequence[str],
    T: int,
    batch: int,
    tell: Callable[[str], None],
    keep: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """The neurons alone, then all networks, which must take MNIST's pixels; `keep` is given what is known so far."""
    source = images_source(mnist(data), "MNIST")
    tell("neurons alone")
    alone = neurons.measure(subjects, rounds, device)
    rates = Rates(
        max(row["copy_bytes_per_second"] for row in alone),
        matrix_rate(torch.bfloat16, device),
        matrix_rate(torch.float32, device),
    )
    found = {"method": METHOD, "device": _name(device), "rates": dataclasses.asdict(rates), "neurons": alone}
    found["networks"] = {}
    for network in networks:
        task = Task(network, T, batch)
        needed = work(task)
        found["networks"][network] = measure(task, source, subjects, rounds, device, tell) | {
            "work": dataclasses.asdict(needed),
            "least_seconds": least_seconds(needed, rates),
        }
        keep(found)
    return found


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
