"""The path that each operator took and why, as records and in the log; switches for tests and benchmarks."""

import functools
import importlib.util
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple

import torch

from stbp.ops import native


class Path(NamedTuple):
    """Record of one pass of an operator, or of a layer that could not be part of a fused run."""

    # Name of the layer in its network; empty where an operator is called by itself.
    layer: str
    # `linear`, `conv2d`, `lif`, `bernoulli` and so on.
    operator: str
    # `forward`, `weight` (its gradient) or `input` (the gradient that goes down).
    step: str
    # `events`, `dense`, `lookup` and so on: see `stbp/ops/README.md`, "Kernels". `torch`: a plain operation of torch's.
    # `reference`: the PyTorch definition, because no kernel could serve. `not fused`: see `refuse`.
    kernel: str
    # Share of ones in the input, or of non-zero values in the gradient; NaN where nothing was measured.
    density: float = math.nan
    # Why no kernel runs; empty where one does.
    reason: str = ""


# The reasons that are somebody's wish: the records hold them, the log does not.
_REFERENCE_ONLY = "dispatch.reference_only() asks for the reference"
_INTERPRETED = "dispatch.interpreted() asks for the Triton kernels"

_seen: ContextVar[list[Path] | None] = ContextVar("seen", default=None)
_layer: ContextVar[str] = ContextVar("layer", default="")
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
    """Collect the records of all operators that run inside, in the order in which they run."""
    seen: list[Path] = []
    with _within(_seen, seen):
        yield seen


def watched() -> bool:
    """True if somebody collects records."""
    return not torch.compiler.is_compiling() and _seen.get() is not None


def layer(name: str) -> AbstractContextManager[None]:
    """Inside, operators name this layer in their records. Nothing under torch.compile: it stops at such variables."""
    return nullcontext() if torch.compiler.is_compiling() else _named(name)


@contextmanager
def _named(name: str) -> Iterator[None]:
    token = _layer.set(name)
    try:
        yield
    finally:
        _layer.reset(token)


def current_layer() -> str:
    """Name of the layer that runs; an operator keeps it for the records of its backward pass."""
    return "" if torch.compiler.is_compiling() else _layer.get()


def note(
    operator: str,
    step: str,
    kernel: str,
    density: float = math.nan,
    layer: str | None = None,
    reason: str = "",
) -> None:
    """Record what an operator did; log once, as a warning, why the reference had to run.

    Args:
        layer: None takes the current one.
        reason: why no kernel runs.
    """
    seen = _seen.get()
    if seen is not None:
        seen.append(Path(_layer.get() if layer is None else layer, operator, step, kernel, density, reason))
    if kernel == "reference" and reason not in (_REFERENCE_ONLY, _INTERPRETED, native.why_not()):
        _log_once(logging.WARNING, f"{operator} runs the PyTorch reference, which is many times slower: {reason}")


def refuse(layer: str, reason: str) -> None:
    """Record, and log once, that a layer is no part of a fused run; it runs by itself."""
    seen = _seen.get()
    if seen is not None:
        seen.append(Path(layer, "chain", "forward", "not fused", math.nan, reason))
    if reason not in (_REFERENCE_ONLY, _INTERPRETED, native.why_not()):
        _log_once(logging.INFO, f"not fused with its neighbours: {reason}")


@functools.cache
def _log_once(level: int, line: str) -> None:
    logging.getLogger("stbp").log(level, "%s", line)


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
    """Name of the way in which GPUs multiply weights and spikes."""
    return _product.get()


def skip() -> bool:
    """True if samples whose gradient is zero are left out of the backward pass."""
    return _skip.get()


def traced() -> bool:
    """True if somebody writes down torch's operators as they are called, and would not see a kernel called directly."""
    # torch.compile reads this code and stops at context variables: asked before all else
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return True
    return torch._C._get_tracing_state() is not None


def why_not(*tensors: torch.Tensor | None, others: Sequence[torch.Tensor] = (), curves: Iterable[str] = ()) -> str:
    """Return why the compiled CPU kernels do not serve these tensors; empty if they do.

    Args:
        tensors: have to be float32 and on the CPU.
        others: have to be on the CPU.
        curves: surrogates that the kernels have to know.
    """
    for tensor in (*tensors, *others):
        if tensor is not None and tensor.device.type != "cpu":
            return f"a tensor on {tensor.device.type}: the compiled kernels are for the CPU"
    for tensor in tensors:
        if tensor is not None and tensor.dtype != torch.float32:
            return f"{str(tensor.dtype).removeprefix('torch.')}: the compiled kernels take float32"
    if _reference.get():
        return _REFERENCE_ONLY
    if _interpreted.get():
        return _INTERPRETED
    if native.kernels() is None:
        native.warn_once()
        return native.why_not()
    for curve in curves:
        if curve not in native.curves():
            return f"surrogate {curve}: the compiled kernels know {', '.join(native.curves())}"
    return ""


def choose(
    *tensors: torch.Tensor | None, others: Sequence[torch.Tensor] = (), curves: Iterable[str] = ()
) -> tuple[Literal["compiled", "triton", "reference"], str]:
    """Return what computes on these tensors, and why no kernel does; arguments as `why_not`."""
    why = why_not(*tensors, others=others, curves=curves)
    if not why:
        return "compiled", ""
    gpu = _why_not_triton(*tensors, *others, curves=curves)
    if not gpu:
        return "triton", ""
    on_cpu = all(tensor is None or tensor.device.type == "cpu" for tensor in (*tensors, *others))
    return "reference", why if on_cpu and not _interpreted.get() else gpu


def compiled(*tensors: torch.Tensor | None, others: Sequence[torch.Tensor] = ()) -> bool:
    """True if the compiled CPU kernels serve these tensors: `why_not` is empty."""
    return not why_not(*tensors, others=others)


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


def why_not_fused(
    *tensors: torch.Tensor | None, others: Sequence[torch.Tensor] = (), curves: Iterable[str] = ()
) -> str:
    """Return why a run of layers cannot be one operator, `chain`, on the CPU or on a GPU; empty if it can.

    Args:
        tensors, others: as `why_not`.
        curves: surrogates of its neurons.
    """
    way, why = choose(*tensors, others=others, curves=curves)
    if way == "triton" and any(tensor is not None and tensor.dtype != torch.float32 for tensor in tensors):
        return "bfloat16: a fused run takes float32"
    return why


def triton(*tensors: torch.Tensor | None) -> bool:
    """True if the Triton kernels serve these tensors: on a CUDA device, floating ones in float32 or bfloat16."""
    return not _why_not_triton(*tensors)


def _why_not_triton(*tensors: torch.Tensor | None, curves: Iterable[str] = ()) -> str:
    device = "cpu" if _interpreted.get() else "cuda"
    for tensor in tensors:
        if tensor is not None and tensor.device.type != device:
            return f"a tensor on {tensor.device.type}, where no kernels are"
        if tensor is not None and tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.bfloat16):
            return f"{str(tensor.dtype).removeprefix('torch.')}: the GPU kernels take float32 and bfloat16"
    if _reference.get():
        return _REFERENCE_ONLY
    if not _interpreted.get() and not _has_triton():
        return "no Triton: pip install stbp[gpu]"
    for curve in curves:
        from stbp.ops.surrogate.gpu import CURVES  # asks for Triton

        if curve not in CURVES:
            return f"surrogate {curve}: the GPU kernels know {', '.join(CURVES)}"
    return ""


@functools.cache
def _has_triton() -> bool:
    """True if Triton is installed; says once, in the log, where it is not."""
    found = importlib.util.find_spec("triton") is not None
    if not found:
        logging.getLogger("stbp").warning(
            "no Triton, so the GPU runs the PyTorch references, which are many times slower: pip install stbp[gpu]"
        )
    return found
