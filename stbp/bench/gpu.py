"""`stbp bench --device cuda`: training steps end to end, and the neurons alone against the speed of the memory."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stbp.bench import neurons, timing
from stbp.bench.device import allocated, copy_rate, event_clock, float32_convolutions, matrix_rate, most_memory, warm
from stbp.bench.equality import Difference, Reference, difference
from stbp.bench.neurons import ALONE
from stbp.bench.ratio import ratios
from stbp.bench.roofline import Rates, least_seconds, work
from stbp.bench.subject import OURS, Entry, Subject, Task, TorchSubject, Weights, failure, ours_by, ours_in_training
from stbp.bench.work import WARM_STEPS, Source, mnist, source_of, takes_mnist, trained
from stbp.ops.spikes import Spikes
from stbp.train.cuda_graph import beside

RECORDED = f"{OURS}, recorded"
NETWORKS = (
    ALONE, "784-400-10", "784-800-10", "784-400-400-10", "28x28-15C5-P2-40C5-P2-300-10", "2312-800-10", "784-16384-10",
)  # fmt: skip
DENSITY = 0.02  # of synthetic input: N-MNIST's
PRODUCTS = tuple(
    Entry(f"{OURS}, {how} products", "variant", ours_by(how), note=f"products of weights and spikes in {how}")
    for how in ("float32", "tf32")
)

METHOD = {
    "step": "end to end, from uint8 images and labels on the device: encoding by each library's own encoder, forward, "
    "loss, backward, optimiser; between two events of the device around a turn of some steps; learning rate 0, weights "
    f"after {WARM_STEPS} steps of our own training",
    "recorded": "the same step of ours, encoder and optimiser included, replayed as one CUDA graph",
    "precision": "convolutions and products of all in float32, never TF32, but for the row that says so",
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
        self.steps = 1  # done so far, the rehearsal first
        begin(subject, weights)
        with beside(subject.device):
            self.step()
        self.replay = self.step  # where nothing can be recorded
        if subject.device.type == "cuda":
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.step()
            self.replay = graph.replay

    def step(self) -> None:
        """One step as it is recorded, always on the same batch."""
        self.batches.at = 0
        self.batches.step(self.subject)

    def __call__(self) -> None:
        self.steps += 1
        self.replay()

    def check(self, other: OnDevice, weights: Weights) -> Difference:
        """Difference of Adam's means of the gradient after another replay, to those of `other` after as many steps.

        Raises:
            ValueError: they are not equal: the replayed step is not to be timed.
        """
        self()
        begin(other, weights)
        for _ in range(self.steps):
            self.batches.at = 0
            self.batches.step(other)
        nothing = torch.zeros(1)
        found = difference(nothing, _means(self.subject), (nothing, _means(other)))
        if not found.equal:
            raise ValueError(f"{RECORDED} is not timed: its gradient is not that of the steps one by one: {found}")
        return found


def begin(subject: OnDevice, weights: Weights) -> None:
    """Weights, and an optimiser that can be recorded."""
    subject.start(weights, 0.0)
    parameters, cuda = subject.subject.parameters, subject.device.type == "cuda"
    subject.subject.optimizer = torch.optim.Adam(parameters, lr=0.0, fused=True, capturable=cuda)


def _means(subject: OnDevice) -> list[Tensor]:
    state = subject.subject.optimizer.state
    return [state[p]["exp_avg"].cpu() for p in subject.subject.parameters]


def measure(
    task: Task,
    source: Source,
    subjects: Sequence[Entry],
    rounds: int,
    device: torch.device,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Everything about one network: a row for every subject, and the ratios."""
    weights = trained(task, source)
    x, y = source.spikes(WARM_STEPS, task)
    reference, batches = Reference(task, weights, x, y), Batches(source, task, device)
    rows: dict[str, dict[str, Any]] = {}
    actions: dict[str, Callable[[], object]] = {}
    torch.compiler.reset()
    for entry in (*subjects, *PRODUCTS):
        row = rows[entry.name] = {"kind": entry.kind, "compiled": entry.compiled, "note": entry.note}
        if not entry.installed or entry.package == "spyx":
            row["status"] = "not installed" if not entry.installed else "left out: XLA has its own GPU build"
            continue
        tell(f"{task.network}: {entry.name}")
        try:
            actions |= _prepare(entry, task, reference, weights, batches, row, device)
        except Exception as error:  # a subject that fails here does not cost the others their numbers
            if entry.kind == "ours":
                raise
            row["status"] = failure(error)
    ours = next(entry for entry in subjects if entry.name == OURS)
    before = allocated(device)
    recorded = Recorded(_place(ours, device, task), Batches(source, task, device), weights)
    rows[RECORDED] = {"kind": "ours", "compiled": True, "note": "one CUDA graph a step"}
    rows[RECORDED]["memory_mib"] = most_memory(recorded, device, before)
    equal = recorded.check(_place(ours, device, task), weights)
    rows[RECORDED]["equality"] = {"verdict": "equal to the steps one by one", **dataclasses.asdict(equal)}
    actions[RECORDED] = recorded
    clock = event_clock(device)
    expected = {name: timing.warm_up(action, clock=clock)[1] for name, action in actions.items()}
    for name, found in timing.interleave(actions, expected, rounds, [], tell, clock).items():
        rows[name] |= {"status": "timed", "step": dataclasses.asdict(found)}
    found = {OURS: rows, RECORDED: rows | {OURS: rows[RECORDED]}}
    return {
        "task": dataclasses.asdict(task),
        "input": source.words,
        "subjects": rows,
        "ratios": {name: {key: ratios(of, key) for key in ("step", "memory_mib")} for name, of in found.items()},
    }


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
    before = allocated(device)
    subject = place(task)
    if entry.kind != "bound":
        equality = reference.compare(dataclasses.replace(entry, build=place), subject)
        row["equality"] = {"verdict": equality.verdict(entry.note), **dataclasses.asdict(equality)}
    subject.start(weights, 0.0)
    step = functools.partial(batches.step, subject)
    row["memory_mib"] = most_memory(step, device, before)
    row["chosen"] = entry.choice(device)
    return {entry.name: step}


def _place(entry: Entry, device: torch.device, task: Task) -> OnDevice:
    subject = ours_in_training(task) if entry.kind == "ours" else entry.build(task)
    assert isinstance(subject, TorchSubject)
    return OnDevice(subject, device, packs=entry.kind in ("ours", "variant", "dense"))


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
    """The neurons alone, if they are among the networks, then all networks; `keep` is given what is known so far.

    Args:
        networks: ALONE among them stands for the neurons alone. What does not take MNIST's pixels gets synthetic input.
    """
    images = mnist(data) if any(takes_mnist(Task(network)) for network in networks if network != ALONE) else None
    warm(device)
    rates = Rates(copy_rate(device), matrix_rate(torch.bfloat16, device), matrix_rate(torch.float32, device))
    found: dict[str, Any] = {"method": METHOD, "device": _name(device), "rates": dataclasses.asdict(rates)}
    found |= {"neurons": [], "networks": {}}
    with float32_convolutions():
        for network in networks:
            tell(network)
            if network == ALONE:
                found["neurons"] = neurons.measure(subjects, rounds, device)
            else:
                task = Task(network, T, batch)
                source, needed = source_of(task, images, DENSITY), work(task)
                found["networks"][network] = measure(task, source, subjects, rounds, device, tell) | {
                    "work": dataclasses.asdict(needed),
                    "least_seconds": least_seconds(needed, rates),
                }
            keep(found)
    return found


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
