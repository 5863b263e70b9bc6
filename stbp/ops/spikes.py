"""`Spikes`: a packed window of spikes, one bit per element."""

from __future__ import annotations

import ctypes
import math

import torch
from jaxtyping import UInt8
from torch import Tensor

from stbp.ops import dispatch, native


def pack_bits(o: Tensor) -> Tensor:
    """Bool `[..., N]` to uint8 `[..., ceil(N/8)]`; element n is bit n % 8 of byte n // 8, spare bits are zero."""
    n = o.shape[-1]
    o = torch.nn.functional.pad(o, (0, -n % 8)).view(torch.uint8).unflatten(-1, (-1, 8))
    packed = o[..., 0].clone()
    for bit in range(1, 8):
        packed |= o[..., bit] << bit
    return packed


def unpack_bits(bits: Tensor, n: int, dtype: torch.dtype) -> Tensor:
    """Uint8 `[..., ceil(n/8)]` to 0 and 1 of `dtype`, `[..., n]`; the inverse of `pack_bits`."""
    o = torch.empty((*bits.shape, 8), dtype=dtype, device=bits.device)
    for bit in range(8):
        o[..., bit] = (bits >> bit) & 1
    return o.flatten(-2)[..., :n]


class Spikes:
    """A packed window of spikes of logical shape `[T, B, ...]`. No gradient flows into it.

    `bits` is uint8 `[T, B, ceil(N/8)]`, N the number of elements behind `[T, B]` in row-major order; element n is bit
    n % 8 of byte n // 8. Made by an encoder, an event store or `Spikes.pack`; synapses and networks take it in place
    of a dense tensor.

    Raises:
        ValueError: `bits` is not uint8 or does not fit `shape`.
    """

    def __init__(self, bits: UInt8[Tensor, "T B bytes"], shape: tuple[int, ...]):
        shape = tuple(shape)
        if len(shape) < 3:
            raise ValueError(f"shape must be [T, B, ...] with at least three axes; got {list(shape)}")
        expected = (shape[0], shape[1], math.ceil(math.prod(shape[2:]) / 8))
        if bits.dtype != torch.uint8 or tuple(bits.shape) != expected:
            raise ValueError(
                f"bits must be uint8 {list(expected)} for spikes {list(shape)}; got {bits.dtype} {list(bits.shape)}"
            )
        spare = -math.prod(shape[2:]) % 8
        looked_at = bits.device.type == "cpu" and not torch.compiler.is_compiling()  # which has no values
        if spare and bits.numel() and looked_at and int(bits[..., -1].max()) >> (8 - spare):
            raise ValueError(
                f"bits must be zero beyond the last element of {list(shape)}: {spare} spare bits in the last byte"
            )
        self.bits = bits
        self.shape = torch.Size(shape)

    @classmethod
    def pack(cls, o: Tensor) -> Spikes:
        """Pack a tensor of zeros and ones, `[T, B, ...]`, any dtype.

        Raises:
            ValueError: fewer than three axes, or a value that is neither 0 nor 1.
        """
        if o.dim() < 3:
            raise ValueError(f"o must be [T, B, ...] with at least three axes; got {list(o.shape)}")
        if dispatch.compiled(o):
            packed = cls.packed(o)
            if packed is not None:
                return packed
        fired = o != 0
        if not torch.equal(fired.to(o.dtype), o):
            raise ValueError("o must hold only 0 and 1 to be packed as spikes; give other values as a dense tensor")
        return cls(pack_bits(fired.reshape(*o.shape[:2], math.prod(o.shape[2:]))), tuple(o.shape))

    @classmethod
    def packed(cls, o: Tensor) -> Spikes | None:
        """As `pack`, by the compiled kernel, for float32 on the CPU.

        None where a value is neither 0 nor 1, or where torch's operators are traced, so that none has a value.
        """
        if dispatch.traced():
            return None
        o = o.detach().contiguous()
        n = math.prod(o.shape[2:])
        bits = o.new_empty((*o.shape[:2], (n + 7) // 8), dtype=torch.uint8)
        size = [ctypes.c_int64(length) for length in (*o.shape[:2], n)]
        places = [ctypes.c_void_p(t.data_ptr()) for t in (o, bits)]
        binary = native.call("stbp_pack", places[0], *size, places[1], torch.get_num_threads())
        return cls(bits, tuple(o.shape)) if binary else None

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The spikes as a tensor of 0 and 1, `[T, B, ...]`."""
        return unpack_bits(self.bits, math.prod(self.shape[2:]), dtype).reshape(self.shape)

    def flatten(self) -> Spikes:
        """The same spikes as `[T, B, N]`; shares the memory."""
        return Spikes(self.bits, (*self.shape[:2], math.prod(self.shape[2:])))

    def to(self, device: torch.device | str) -> Spikes:
        """The same spikes on another device."""
        return Spikes(self.bits.to(device), tuple(self.shape))

    def __getitem__(self, index: slice | tuple[slice, slice]) -> Spikes:
        """A part of the window, `spikes[t0:t1]`, or of the batch, `spikes[:, b0:b1]`, as a view."""
        parts = index if isinstance(index, tuple) else (index,)
        if len(parts) > 2 or not all(isinstance(part, slice) for part in parts):
            raise TypeError("spikes take one slice along T and one along B, as in spikes[5:10, :32]")
        bits = self.bits[parts]
        return Spikes(bits, (*bits.shape[:2], *self.shape[2:]))

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def device(self) -> torch.device:
        return self.bits.device

    def density(self) -> float:
        """The share of ones among all elements; 0 for an empty window."""
        ones = unpack_bits(self.bits, self.bits.shape[-1] * 8, torch.uint8).sum(dtype=torch.int64).item()
        return ones / max(1, math.prod(self.shape))

    def __repr__(self) -> str:
        return f"Spikes({list(self.shape)}, {self.bits.nbytes} bytes on {self.device})"
