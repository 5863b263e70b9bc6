"""Which way the operators took: what was measured, what was chosen, and the switches that benchmarks and tests need."""

import functools
import importlib.util
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

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
_product: ContextVar[str] = ContextVar("product", default="split")
_interpreted: ContextVar[bool] = ContextVar("interpreted", default=False)


@contextmanager
def _within(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    """Set it here and in the backward passes called inside, which for CUDA tensors have threads of their own."""
    token = variable.set(value)
    try:
        with torch.autograd.set_multithreading_enabled(False):
            yield
    finally:
        variable.reset(token)


@contextmanager
def watch() -> Iterator[list[Path]]:
    """Collect the paths of all operators that run inside."""
    seen: list[Path] = []
    with _within(_seen, seen):
        yield seen


def watched() -> bool:
    """Whether anybody watches."""
    return _seen.get() is not None


def note(operator: str, step: str, kernel: str, density: float = float("nan")) -> None:
    """Tell the watcher, if there is one."""
    seen = _seen.get()
    if seen is not None:
        seen.append(Path(operator, step, kernel, density))


def reference_only() -> AbstractContextManager[None]:
    """Inside, every operator is the PyTorch reference, whatever kernels there are."""
    return _within(_reference, True)


def no_skip() -> AbstractContextManager[None]:
    """Inside, the backward pass treats samples whose gradient is zero like all others: same result, more time."""
    return _within(_skip, False)


def products(how: str) -> AbstractContextManager[None]:
    """Inside, GPUs multiply weights and spikes by `split` (bfloat16 parts, exact), `float32` or `tf32`: to compare."""
    return _within(_product, how)


def product() -> str:
    """How GPUs multiply weights and spikes."""
    return _product.get()


def skip() -> bool:
    """Whether samples whose gradient is zero are left out of the backward pass."""
    return _skip.get()


def traced() -> bool:
    """Whether somebody writes down torch's operators as they are called, who would not see a kernel called directly."""
    # torch.compile reads this code and stops at context variables: asked before all else
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return True
    return torch._C._get_tracing_state() is not None


def compiled(*tensors: torch.Tensor | None, others: Sequence[torch.Tensor] = ()) -> bool:
    """Whether the compiled kernels serve these tensors: float32 and on the CPU; of `others` only the device counts."""
    for tensor in tensors:
        if tensor is not None and (tensor.device.type != "cpu" or tensor.dtype != torch.float32):
            return False
    if any(tensor.device.type != "cpu" for tensor in others):
        return False
    if _reference.get() or _interpreted.get():
        return False
    if native.kernels() is None:
        native.warn_once()
        return False
    return True


@contextmanager
def interpreted() -> Iterator[None]:
    """Inside, tensors on the CPU take the Triton kernels by its interpreter: for tests.

    Raises:
        RuntimeError: Triton is not there, or `TRITON_INTERPRET=1` was not set before its first import.
    """
    from stbp.ops import gpu

    if not gpu.INTERPRETED:
        raise RuntimeError("set TRITON_INTERPRET=1 in the environment before anything imports the kernels")
    with _within(_interpreted, True):
        yield


def fused(*tensors: torch.Tensor | None, others: Sequence[torch.Tensor] = ()) -> bool:
    """Whether a run of layers on these tensors can be one operator, `chain`: on the CPU or on a GPU."""
    if compiled(*tensors, others=others):
        return True
    return triton(*tensors, *others) and all(t is None or t.dtype == torch.float32 for t in tensors)


def triton(*tensors: torch.Tensor | None) -> bool:
    """Whether the Triton kernels serve these tensors: on a CUDA device, floating ones in float32 or bfloat16."""
    device = "cpu" if _interpreted.get() else "cuda"
    for tensor in tensors:
        if tensor is not None and tensor.device.type != device:
            return False
        if tensor is not None and tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.bfloat16):
            return False
    return not _reference.get() and (_interpreted.get() or _has_triton())


@functools.cache
def _has_triton() -> bool:
    """Whether Triton is installed; says once, in the log, where it is not."""
    found = importlib.util.find_spec("triton") is not None
    if not found:
        logging.getLogger("stbp").warning(
            "no Triton, so the GPU runs the PyTorch references, which are many times slower: pip install stbp[gpu]"
        )
    return found
