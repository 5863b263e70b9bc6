"""Memory that a training step frees: the C library is told to keep it for the next step."""

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
KEPT, FROM_HEAP = 1 << 30, 32 << 20  # bytes: free at the heap's end and kept; the largest taken from the heap


def keep_freed_memory() -> None:
    """Let this process keep what a step frees for the next one.

    glibc gives much of it back after some steps and has it faulted in again, page by page, in the next, which makes
    whole epochs slower (LOG.md). Call it in a process of our own alone: it holds for all of the process. Where the C
    library is another one, or the environment says what malloc is to do, nothing happens.
    """
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(TRIM_THRESHOLD, KEPT)
        libc.mallopt(MMAP_THRESHOLD, FROM_HEAP)
