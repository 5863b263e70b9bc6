"""Bernoulli encoding on a GPU: the reference's Philox numbers, so the same spikes as on a CPU, packed as they fall."""

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from stbp.ops.gpu import ROUNDED_TWICE, on, packed
from stbp.ops.philox import ENCODE

ENCODED = tl.constexpr(ENCODE)
_BLOCK = 256


@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """Philox4x32-10 on uint32: as `reference.philox`."""
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, 0xD2511F53), c0 * 0xD2511F53
        high2, low2 = tl.umulhi(c2, 0xCD9E8D57), c2 * 0xCD9E8D57
        c0, c1, c2, c3 = high2 ^ c1 ^ k0, low2, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + 0x9E3779B9, k1 + 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def _store(word, level, bits, there, BLOCK: tl.constexpr):
    """One step's spikes of BLOCK pixels, eight in a byte."""
    tl.store(bits, packed((word >> 8).to(tl.int32) < level, BLOCK), there)


@triton.jit(do_not_specialize=["T", "B", "seed"])
def _bernoulli(image, levels, sample, epoch, bits, T, B, N, seed, BYTES: tl.constexpr, BLOCK: tl.constexpr):
    """A program: BLOCK pixels of one image, all steps; four of them share a counter. BYTES: uint8 or numbers."""
    blocks = tl.cdiv(N, BLOCK)
    b, first = tl.program_id(0) // blocks, tl.program_id(0) % blocks * BLOCK
    n = first + tl.arange(0, BLOCK)
    value = tl.load(image + b.to(tl.int64) * N + n, n < N, 0)
    if BYTES:
        level = tl.load(levels + value.to(tl.int32))
    else:
        level = tl.ceil(value.to(tl.float32) * 16777216.0).to(tl.int32)  # r < p <=> 24-bit word < level
    zero = tl.zeros((BLOCK,), tl.uint32)
    pixel, who = n.to(tl.uint32), zero + tl.load(sample + b).to(tl.uint32)
    when = zero + tl.load(epoch).to(tl.uint32)
    k0, k1 = zero + seed.to(tl.uint32), zero + ENCODED
    bytes = tl.cdiv(N, 8)
    byte = first // 8 + tl.arange(0, BLOCK // 8)
    row = B.to(tl.int64) * bytes
    place = bits + b.to(tl.int64) * bytes + byte
    for block in range(tl.cdiv(T, 4)):
        w0, w1, w2, w3 = philox(pixel, zero + block, who, when, k0, k1)
        t = block * 4
        _store(w0, level, place, byte < bytes, BLOCK)
        _store(w1, level, place + row, byte < tl.where(T > t + 1, bytes, 0), BLOCK)
        _store(w2, level, place + 2 * row, byte < tl.where(T > t + 2, bytes, 0), BLOCK)
        _store(w3, level, place + 3 * row, byte < tl.where(T > t + 3, bytes, 0), BLOCK)
        place += 4 * row


@functools.lru_cache(maxsize=8)
def _levels(device: torch.device) -> Tensor:
    """The level of each of the 256 values of a pixel, worked out on the CPU: a GPU divides by 255 in another way."""
    return torch.ceil((torch.arange(256, device="cpu").float() / 255).double() * 2**24).to(torch.int32).to(device)


def bernoulli(image: Tensor, T: int, seed: int, epoch: int | Tensor, sample: Tensor) -> Tensor:
    """As `reference.bernoulli`; `epoch` may be an int64 tensor of one number, which a recorded graph reads anew."""
    (B, N), image = image.shape, image.contiguous()
    bits = image.new_empty((T, B, (N + 7) // 8), dtype=torch.uint8)
    if bits.numel():
        when = epoch if isinstance(epoch, Tensor) else sample.new_full((1,), epoch)
        with on(image):
            _bernoulli[(B * triton.cdiv(N, _BLOCK),)](
                image, _levels(image.device), sample.contiguous(), when, bits, T, B, N, seed,
                BYTES=image.dtype == torch.uint8, BLOCK=_BLOCK, **ROUNDED_TWICE,
            )  # fmt: skip
    return bits
