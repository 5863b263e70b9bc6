"""Clock and memory of a device, the rates that it reaches, and one precision for all."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from stbp.bench import timing

AGAIN = 3


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def event_clock(device: torch.device) -> timing.Clock:
    """Seconds between two events of the device around a call, which is waited for; of a CPU by its own clock."""
    if device.type != "cuda":
        return timing.clock

    def clocked(action: Callable[[], object]) -> float:
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        wait(device)
        begun.record()
        action()
        ended.record()
        ended.synchronize()
        return begun.elapsed_time(ended) / 1000

    return clocked


def allocated(device: torch.device) -> int:
    """Bytes of tensors on a device; 0 on a CPU, where nobody counts them."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def most_memory(action: Callable[[], object], device: torch.device, before: int | None = None) -> float | None:
    """MiB allocated at once by a few calls, above `before` (or what is there now); None on a CPU."""
    if device.type != "cuda":
        return None
    start = allocated(device) if before is None else before
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(AGAIN):
        action()
    wait(device)
    return (torch.cuda.max_memory_allocated(device) - start) / 2**20


def copy_rate(device: torch.device, elements: int = 1 << 27) -> float:
    """Bytes read and written in a second by a copy of so many float32 numbers, the fastest of a few."""
    a = torch.rand(elements, device=device)
    _, fastest = timing.warm_up(functools.partial(torch.empty_like(a).copy_, a), clock=event_clock(device))
    return 8 * elements / fastest


def matrix_rate(dtype: torch.dtype, device: torch.device, size: int = 8192) -> float:
    """Multiplications and additions a second, by a product of two square matrices, the fastest of a few."""
    a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    _, fastest = timing.warm_up(functools.partial(torch.mm, a, b), clock=event_clock(device))
    return 2 * size**3 / fastest


@contextlib.contextmanager
def float32_convolutions() -> Iterator[None]:
    """Inside, cuDNN's convolutions are float32 for everyone; its default rounds to TF32, which ours do not."""
    convolutions: Any = torch.backends.cudnn.conv  # pyright: ignore[reportAttributeAccessIssue]
    before, convolutions.fp32_precision = convolutions.fp32_precision, "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def warm(device: torch.device) -> None:
    """Libraries take their memory with the first product, in each of the threads that compute: not from a subject."""
    a = torch.rand(64, 64, device=device, requires_grad=True)
    (a @ a).sum().backward()
    wait(device)
