"""Packed spikes to numbers of spikes on a GPU, each in a byte: with pooling how many fired in an area, else 0 or 1."""

import triton
import triton.language as tl
from torch import Tensor

from stbp.ops.gpu import ROUNDED_TWICE, on

_BLOCK = 1024


@triton.jit
def _count(bits, counts, N, C, H, W, POOL: tl.constexpr, BLOCK: tl.constexpr):
    """A program: BLOCK areas of one frame of C maps of H x W, packed in rows of whole bytes."""
    height, width = H // POOL, W // POOL
    areas = C * height * width
    blocks = tl.cdiv(areas, BLOCK)
    frame, first = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks * BLOCK
    n = first + tl.arange(0, BLOCK)
    there = n < areas
    corner = n
    if POOL > 1:
        corner = (n // (height * width) * H + n // width % height * POOL) * W + n % width * POOL
    bits += frame * tl.cdiv(N, 8)
    count = tl.zeros((BLOCK,), tl.int32)
    for y in range(POOL):
        for x in range(POOL):
            at = corner + y * W + x
            count += (tl.load(bits + at // 8, there, 0).to(tl.int32) >> (at % 8)) & 1
    tl.store(counts + frame * areas + n, count.to(tl.uint8), there)


def counts(bits: Tensor, size: tuple[int, int, int], pool: int) -> Tensor:
    """How many spikes each `pool` x `pool` area holds.

    Args:
        bits: packed spikes `[T, B, bytes]` of maps of `size`, (C, H, W).

    Returns:
        uint8 `[T * B, C, H // pool, W // pool]`.
    """
    C, H, W = size
    frames, bits = bits.shape[0] * bits.shape[1], bits.contiguous()
    found = bits.new_empty((frames, C, H // pool, W // pool))
    if found.numel():
        programs = frames * triton.cdiv(found[0].numel(), _BLOCK)
        with on(bits):
            _count[(programs,)](bits, found, C * H * W, C, H, W, POOL=pool, BLOCK=_BLOCK, **ROUNDED_TWICE)
    return found
