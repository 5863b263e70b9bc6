"""Which way the operators took: what was measured, what was chosen, and the switches that benchmarks and tests need."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch

from stbp.ops import native


class Path(NamedTuple):
    """What one pass of an operator did."""

    # `linear`, `conv2d`, `lif`, `bernoulli`; in a chain of layers the number of the stage in front: `0 linear`.
    operator: str
    # `forward`, `weight` (its gradient) or `input` (the gradient that goes down).
    step: str
    # `events`, `dense`, `lookup` and so on: see `stbp/ops/README.md`, "Kernels".
    kernel: str
    # Share of ones in the input, or of non-zero values in the gradient; NaN where nothing was measured.
    density: float


_seen: ContextVar[list[Path] | None] = ContextVar("seen", default=None)
_reference: ContextVar[bool] = ContextVar("reference", default=False)
_skip: ContextVar[bool] = ContextVar("skip", default=True)


@contextmanager
def watch() -> Iterator[list[Path]]:
    """Collect the paths of all operators that run inside."""
    seen: list[Path] = []
    token = _seen.set(seen)
    try:
        yield seen
    finally:
        _seen.reset(token)


def watched() -> bool:
    """Whether anybody watches."""
    return _seen.get() is not None


def note(operator: str, step: str, kernel: str, density: float = float("nan")) -> None:
    """Tell the watcher, if there is one."""
    seen = _seen.get()
    if seen is not None:
        seen.append(Path(operator, step, kernel, density))


@contextmanager
def reference_only() -> Iterator[None]:
    """Inside, every operator is the PyTorch reference, whatever kernels there are."""
    token = _reference.set(True)
    try:
        yield
    finally:
        _reference.reset(token)


@contextmanager
def no_skip() -> Iterator[None]:
    """Inside, the backward pass treats samples whose gradient is zero like all others: same result, more time."""
    token = _skip.set(False)
    try:
        yield
    finally:
        _skip.reset(token)


def skip() -> bool:
    """Whether samples whose gradient is zero are left out of the backward pass."""
    return _skip.get()


def compiled(*tensors: torch.Tensor | None, others: Sequence[torch.Tensor] = ()) -> bool:
    """Whether the compiled kernels serve these tensors: float32 and on the CPU; of `others` only the device counts."""
    for tensor in tensors:
        if tensor is not None and (tensor.device.type != "cpu" or tensor.dtype != torch.float32):
            return False
    if any(tensor.device.type != "cpu" for tensor in others):
        return False
    if _reference.get():
        return False
    if native.kernels() is None:
        native.warn_once()
        return False
    return True
