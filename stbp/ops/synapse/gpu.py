"""Synapses behind spikes on a GPU: convolutions, of which a linear synapse is the case of maps of one pixel.

Input are numbers of spikes, a byte each: with pooling how many fired in an area, else 0 or 1 (`counts`).
Products are `ops.gpu.product`: on the tensor cores, exact.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from stbp.ops import dispatch
from stbp.ops.gpu import INTERPRETED, ROUNDED_TWICE, on, product
from stbp.ops.synapse.conv2d_reference import exact_convolutions

PRODUCTS = ("split", "float32", "tf32")
_ROWS, _MAPS, _TAPS = 64, 64, 64
_BLOCK = 1024  # areas of a program that counts
_PARTS = 256  # programs that a weight gradient is divided among: enough for any GPU, the same on all


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
    """Return the number of spikes in each `pool` x `pool` area.

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


class Geometry(NamedTuple):
    """Input maps C x H x W, output maps OH x OW, kernel of `side` pixels, stride and padding."""

    C: int
    H: int
    W: int
    OH: int
    OW: int
    side: int
    stride: int
    pad: int

    @classmethod
    def of(cls, size: tuple[int, int, int], side: int, stride: int, pad: int) -> "Geometry":
        C, H, W = size
        return cls(C, H, W, (H + 2 * pad - side) // stride + 1, (W + 2 * pad - side) // stride + 1, side, stride, pad)

    @property
    def maps(self) -> bool:
        """True for a convolution, False for a linear synapse."""
        return self.H * self.W * self.side > 1


@triton.jit
def _place(row, tap, rows, taps, C, H, W, OH, OW, side, stride, pad, MAPS: tl.constexpr):
    """Where in the input the values lie that output `row` sees through weight `tap`, and whether they do."""
    if MAPS:
        frame, y, x = row // (OH * OW), row // OW % OH * stride - pad, row % OW * stride - pad
        channel, y, x = tap // (side * side), y + tap // side % side, x + tap % side
        inside = (y >= 0) & (y < H) & (x >= 0) & (x < W)
        at = (frame.to(tl.int64) * C + channel) * (H * W) + y * W + x
    else:
        at = row.to(tl.int64) * taps + tap
        inside = at >= 0
    return at, inside & (row < rows) & (tap < taps)


# what decides on alignment, the length of a row of weights, is compiled in as a multiple of 16 or not; nothing else is
_ANY = ["rows", "M", "C", "H", "W", "OH", "OW", "side", "stride", "pad", "scale"]


@triton.jit(do_not_specialize=_ANY)
def _forward(
    counts, weight, bias, out, rows, taps, M, C, H, W, OH, OW, side, stride, pad, scale,
    MAPS: tl.constexpr, BIAS: tl.constexpr, HOW: tl.constexpr, INTERPRET: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """A program: ROWS output pixels (of all frames, one behind the other) of COLUMNS maps."""
    blocks = tl.cdiv(M, COLUMNS)
    row = (tl.program_id(0) // blocks * ROWS + tl.arange(0, ROWS))[:, None]
    m = (tl.program_id(0) % blocks * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, taps, TAPS):
        tap = first + tl.arange(0, TAPS)
        at, inside = _place(row, tap[None, :], rows, taps, C, H, W, OH, OW, side, stride, pad, MAPS)
        a = tl.load(counts + at, inside, 0)
        w = tl.load(weight + m * taps + tap[:, None], (m < M) & (tap[:, None] < taps), 0.0)
        total = product(a, w, total, HOW, INTERPRET)
    total *= scale
    if BIAS:
        total += tl.load(bias + m, m < M, 0.0)
    pixels = OH * OW if MAPS else 1
    place = (row // pixels).to(tl.int64) * M * pixels + m * pixels + row % pixels
    tl.store(out + place, total, (row < rows) & (m < M))


@triton.jit(do_not_specialize=[*_ANY, "share"])
def _weight_gradient(
    counts, eps, out, rows, taps, M, C, H, W, OH, OW, side, stride, pad, share, scale,
    MAPS: tl.constexpr, HOW: tl.constexpr, INTERPRET: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """A program: TAPS weights of COLUMNS maps, over one of the shares that the rows are divided into."""
    blocks, parts = tl.cdiv(M, COLUMNS), tl.cdiv(taps, TAPS)
    part = tl.program_id(0) // blocks
    m = (tl.program_id(0) % blocks * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    tap = (part % parts * TAPS + tl.arange(0, TAPS))[:, None]
    which = part // parts
    pixels = OH * OW if MAPS else 1
    total = tl.zeros((TAPS, COLUMNS), tl.float32)
    for first in range(0, share, ROWS):
        row = which * share + first + tl.arange(0, ROWS)
        at, inside = _place(row[None, :], tap, rows, taps, C, H, W, OH, OW, side, stride, pad, MAPS)
        a = tl.load(counts + at, inside, 0)
        behind = row[:, None]
        place = (behind // pixels).to(tl.int64) * M * pixels + m * pixels + behind % pixels
        e = tl.load(eps + place, (behind < rows) & (m < M), 0.0)
        total = product(a, e, total, HOW, INTERPRET)
    place = which.to(tl.int64) * M * taps + m * taps + tap
    tl.store(out + place, total * scale, (m < M) & (tap < taps))


def _as_maps(size: Sequence[int], weight: Tensor, stride: int, pad: int) -> tuple[tuple[int, int, int], Geometry]:
    """Size of the input as maps, (C, H, W), and the geometry of the synapse: a linear one has maps of one pixel."""
    C, H, W = (*size, 1, 1)[:3]
    return (C, H, W), Geometry.of((C, H, W), weight.shape[-1] if weight.dim() == 4 else 1, stride, pad)


def spikes_forward(
    bits: Tensor, size: Sequence[int], weight: Tensor, bias: Tensor | None, stride: int, pad: int
) -> Tensor:
    """Currents `[T, B, M, OH, OW]` of packed spikes of maps of `size`, (C, H, W); of `(N,)`, `[T, B, M]`."""
    T, B = bits.shape[:2]
    maps, geometry = _as_maps(size, weight, stride, pad)
    out = weight.new_empty((T * B, len(weight), geometry.OH, geometry.OW))
    found = forward(counts(bits, maps, 1), weight, bias, geometry, 1.0, out)
    return found.view(T, B, len(weight), *found.shape[2:] if weight.dim() == 4 else ())


def spikes_backward(
    grad: Tensor,
    bits: Tensor,
    size: Sequence[int],
    weight: Tensor,
    stride: int,
    pad: int,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    """Gradients of weight and bias, each an empty tensor where `needs` says so."""
    maps, geometry = _as_maps(size, weight, stride, pad)
    eps, none = grad.flatten(0, 1).contiguous(), grad.new_empty(0)
    found = weight_gradient(counts(bits, maps, 1), eps, tuple(weight.shape), geometry, 1.0) if needs[0] else none
    return found, eps.sum((0, *range(2, eps.dim()))) if needs[1] else none


def _how() -> int:
    return PRODUCTS.index(dispatch.product())


def _columns(M: int) -> int:
    """Maps of a program."""
    return min(_MAPS, max(16, triton.next_power_of_2(M)))


def forward(seen: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, scale: float, out: Tensor) -> Tensor:
    """Currents `[T * B, M, OH, OW]`, into `out`: scale * weight * seen + bias; `seen`: counts `[T * B, C, H, W]`."""
    rows, taps, M = len(seen) * geometry.OH * geometry.OW, weight[0].numel(), len(weight)
    weight = weight.contiguous()
    columns = _columns(M)
    if rows:
        with on(seen):
            _forward[(triton.cdiv(rows, _ROWS) * triton.cdiv(M, columns),)](
                seen, weight, weight if bias is None else bias.contiguous(), out, rows, taps, M, *geometry, scale,
                MAPS=geometry.maps, BIAS=bias is not None, HOW=_how(), INTERPRET=INTERPRETED,
                ROWS=_ROWS, COLUMNS=columns, TAPS=_TAPS, **ROUNDED_TWICE,
            )  # fmt: skip
    return out


def weight_gradient(seen: Tensor, eps: Tensor, shape: tuple[int, ...], geometry: Geometry, scale: float) -> Tensor:
    """The gradient of a weight `[M, ...]` of that shape; sums in a fixed order."""
    M, taps = shape[0], math.prod(shape[1:])
    rows = len(seen) * geometry.OH * geometry.OW
    columns = _columns(M)
    tiles = triton.cdiv(M, columns) * triton.cdiv(taps, _TAPS)
    shares = max(1, min(_PARTS // tiles, triton.cdiv(rows, 4 * _ROWS)))
    share = triton.cdiv(triton.cdiv(rows, shares), _ROWS) * _ROWS
    if not rows:
        return eps.new_zeros(shape)
    out = eps.new_empty((shares, *shape))
    with on(seen):
        _weight_gradient[(tiles * shares,)](
            seen, eps, out, rows, taps, M, *geometry, share, scale,
            MAPS=geometry.maps, HOW=_how(), INTERPRET=INTERPRETED,
            ROWS=_ROWS, COLUMNS=columns, TAPS=_TAPS, **ROUNDED_TWICE,
        )  # fmt: skip
    return out[0] if shares == 1 else out.sum(0)


def input_gradient(eps: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """The gradient of the input, `[T * B, C, H, W]`: neither side are spikes, so a product of torch's, in float32."""
    g = geometry
    if not g.maps:
        return (eps.flatten(1) @ weight.flatten(1))[..., None, None]
    shape = (len(eps), g.C, g.H, g.W)
    with exact_convolutions(eps):
        return torch.nn.grad.conv2d_input(shape, weight, eps, g.stride, g.pad)
