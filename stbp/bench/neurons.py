"""The neurons alone on a device, ours and the peers', forward and backward, beside a copy of the currents."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stbp import nn
from stbp.bench import timing
from stbp.bench.device import event_clock, most_memory
from stbp.bench.equality import TOLERANCE, Difference, Equality, difference
from stbp.bench.subject import Entry, Task, TorchSubject, failure, ours_dense

ALONE = "neurons"  # among the networks of a GPU: the neurons alone
SHAPES = ((16384,), (128, 64, 64))  # a wide layer, maps of a convolution
STEPS = (4, 32, 128)
ELEMENTS = 1 << 27  # spikes of a layer over its window, at most: half a GiB of currents
MOVED = 12  # bytes for each pass, step and neuron: current, potential and spike; gradient, potential and gradient
COPIED = 8


@dataclass(frozen=True)
class Neurons(Task):
    """Neurons of any shape behind nothing: what a subject builds for it takes currents and has no parameters."""

    network: str = "neurons alone"

    def build(self, input_rate: float = 0.1) -> nn.Network:
        return nn.Network(nn.LIF(self.decay, self.threshold, width=self.width))


def measure(
    subjects: Sequence[Entry], rounds: int, device: torch.device, elements: int | None = None
) -> list[dict[str, Any]]:
    """A row for every shape and number of steps: what each subject takes, and what a copy of its currents does."""
    most = ELEMENTS if elements is None else elements
    return [_row(shape, T, subjects, rounds, device, most) for shape in SHAPES for T in STEPS]


def _row(
    shape: tuple[int, ...], T: int, subjects: Sequence[Entry], rounds: int, device: torch.device, elements: int
) -> dict[str, Any]:
    task = Neurons(T=T, batch=max(1, elements // (T * torch.Size(shape).numel())))
    x = torch.rand(T, task.batch, *shape, device=device)
    copy, grad = torch.empty_like(x), torch.rand_like(x)
    actions: dict[str, Callable[[], object]] = {"copy": lambda: copy.copy_(x)}
    found: dict[str, dict[str, Any]] = {}
    for entry in subjects:
        if entry.kind not in ("ours", "peer") or entry.compiled or not entry.installed:
            continue
        row = found[entry.name] = {"kind": entry.kind, "note": entry.note}
        try:
            passes, row["memory_mib"], equality = _prepare(entry, task, x, grad, device)
        except Exception as error:  # a peer that fails here does not cost the others their numbers
            if entry.kind == "ours":
                raise
            row["status"] = failure(error)
            continue
        row["equality"] = equality.verdict(entry.note)
        row["chosen"] = entry.choice(device)
        actions |= {f"{entry.name} {name}": action for name, action in passes.items()}
    clock = event_clock(device)
    expected = {name: timing.warm_up(action, clock=clock)[1] for name, action in actions.items()}
    spreads = timing.interleave(actions, expected, rounds, clock=clock)
    speed = COPIED * x.numel() / spreads["copy"].median
    for name, row in found.items():
        for part in ("forward", "backward"):
            spread = spreads.get(f"{name} {part}")
            if spread:
                row[part] = dataclasses.asdict(spread)
                row[f"{part}_of_copy"] = MOVED * x.numel() / spread.median / speed
    return {
        "shape": list(x.shape),
        "copy": dataclasses.asdict(spreads["copy"]),
        "copy_bytes_per_second": speed,
        "subjects": found,
    }


def _prepare(
    entry: Entry, task: Neurons, x: Tensor, grad: Tensor, device: torch.device
) -> tuple[dict[str, Callable[[], object]], float | None, Equality]:
    """A subject's two passes, the memory that they take, and what it computes of one sample against the reference.

    Raises:
        ValueError: it is ours, and not equal: then it is not to be timed.
    """
    subject = entry.build(task)
    assert isinstance(subject, TorchSubject)
    module = subject.module.to(device)
    equality = Equality(None, _compare(subject, task, x[:, :1], grad[:, :1]))
    if entry.kind == "ours" and not equality.timed.equal:
        raise ValueError(
            f"{entry.name} is not timed: neurons alone do not equal their reference, {equality.timed}, where "
            f"{TOLERANCE:g} is allowed; run the tests of stbp/ops"
        )

    def spikes(currents: Tensor) -> Tensor:
        with subject.mode():
            o = module(currents)
        subject.after()
        return o

    def forward() -> Tensor:
        return spikes(x.detach().requires_grad_())

    memory = most_memory(lambda: forward().backward(grad), device)
    currents = x.detach().requires_grad_()
    o = spikes(currents)

    def backward() -> object:
        return torch.autograd.grad(o, currents, grad, retain_graph=True)

    return {"forward": forward, "backward": backward}, memory, equality


def _compare(subject: TorchSubject, task: Neurons, x: Tensor, grad: Tensor) -> Difference:
    def look(one: TorchSubject) -> tuple[Tensor, list[Tensor]]:
        currents = x.detach().clone().requires_grad_()
        with one.mode():
            o = one.module(currents)
            gradients = torch.autograd.grad(o, currents, grad)
        one.after()
        return o.detach(), list(gradients)

    o, gradients = look(subject)
    return difference(o, gradients, look(ours_dense(task)))
