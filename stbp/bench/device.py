"""Clock and memory of a device, and the rates that it reaches."""

import functools
from collections.abc import Callable

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


def most_memory(action: Callable[[], object], device: torch.device, before: int | None = None) -> float | None:
    """MiB allocated at once by a few calls, above `before` (or what is there now); None on a CPU."""
    if device.type != "cuda":
        return None
    start = torch.cuda.memory_allocated(device) if before is None else before
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(AGAIN):
        action()
    wait(device)
    return (torch.cuda.max_memory_allocated(device) - start) / 2**20


def matrix_rate(dtype: torch.dtype, device: torch.device, size: int = 8192) -> float:
    """Multiplications and additions a second, by a product of two square matrices, the fastest of a few."""
    a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    _, fastest = timing.warm_up(functools.partial(torch.mm, a, b), clock=event_clock(device))
    return 2 * size**3 / fastest
