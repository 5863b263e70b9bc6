"""The neurons on a GPU: forward and backward one launch each, potentials in registers from step to step.

One kernel serves every number of steps, neurons, samples and stride; only surrogate, dtype, what is kept, and which
numbers are multiples of 16 are compiled in. It is the reference's arithmetic in float32, whatever dtype the currents
are stored in.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from stbp.ops.gpu import BITS, NONE, POTENTIALS, ROUNDED_TWICE, on, packed
from stbp.ops.stage import Neuron
from stbp.ops.surrogate.gpu import CURVES


@triton.jit(do_not_specialize=["T", "B"])
def _forward(
    x, u0, o0, o, bits, us, fired_words, inside_words, u_last,
    T, B, N, step, sample, element,
    keep0, keep1, threshold, width,
    KEEP: tl.constexpr, PACK: tl.constexpr, STATE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program: BLOCK neurons of one sample, all steps. `step`, `sample`, `element`: strides of x."""
    blocks = tl.cdiv(N, BLOCK)
    b, first = tl.program_id(0) // blocks, tl.program_id(0) % blocks * BLOCK
    n = first + tl.arange(0, BLOCK)
    there = n < N
    at = b.to(tl.int64) * N + n  # of contiguous tensors
    x += b.to(tl.int64) * sample + n.to(tl.int64) * element
    row = B.to(tl.int64) * N
    bytes = tl.cdiv(N, 8)
    packed_row = B.to(tl.int64) * bytes
    byte = first // 8 + tl.arange(0, BLOCK // 8)
    bits += b.to(tl.int64) * bytes
    u = tl.zeros((BLOCK,), tl.float32)
    fired = tl.zeros((BLOCK,), tl.int1)
    if STATE:
        u = tl.load(u0 + at, there, 0.0).to(tl.float32)
        fired = tl.load(o0 + at, there, 0.0) > 0
    fired_word = tl.zeros((BLOCK,), tl.int32)
    inside_word = tl.zeros((BLOCK,), tl.int32)
    for t in range(T):
        u = u * tl.where(fired, keep1, keep0) + tl.load(x, there, 0.0).to(tl.float32)
        fired = u >= threshold
        if PACK:
            tl.store(bits + t * packed_row + byte, packed(fired & there, BLOCK), byte < bytes)
        else:
            tl.store(o + t * row + at, tl.where(fired, 1.0, 0.0).to(o.dtype.element_ty), there)
        if KEEP == POTENTIALS:
            tl.store(us + t * row + at, u, there)
        if KEEP == BITS:
            bit = t % 32
            fired_word |= fired.to(tl.int32) << bit
            inside_word |= (tl.abs(u - threshold) < 0.5 * width).to(tl.int32) << bit
            if (bit == 31) | (t == T - 1):
                tl.store(fired_words + t // 32 * row + at, fired_word, there)
                tl.store(inside_words + t // 32 * row + at, inside_word, there)
                fired_word = tl.zeros((BLOCK,), tl.int32)
                inside_word = tl.zeros((BLOCK,), tl.int32)
        x += step
    if STATE:
        tl.store(u_last + at, u.to(u_last.dtype.element_ty), there)


@triton.jit
def _behind_pooling(n, there, H, W, PH, PW, POOL: tl.constexpr):
    """Where the area lies that neuron n of maps of H x W is in, and whether it is in one."""
    y, x = n // W % H // POOL, n % W // POOL
    return (n // (H * W) * PH + y) * PW + x, there & (y < PH) & (x < PW)


@triton.jit
def _words(fired_words, inside_words, at, there):
    return tl.load(fired_words + at, there, 0), tl.load(inside_words + at, there, 0)


@triton.jit(do_not_specialize=["T", "B"])
def _backward(
    grad_o, grad_u, us, fired_words, inside_words, u0, o0, grad_x, grad_u0, grad_o0,
    T, B, N, step, sample, element, H, W, PH, PW,
    keep0, keep1, slope0, slope1, threshold, width,
    KEEP: tl.constexpr, STATE: tl.constexpr, CURVE: tl.constexpr, POOL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program: BLOCK neurons of one sample, all steps backward. The gradient may lie behind POOL x POOL pooling."""
    blocks = tl.cdiv(N, BLOCK)
    b, first = tl.program_id(0) // blocks, tl.program_id(0) % blocks * BLOCK
    n = first + tl.arange(0, BLOCK)
    there = n < N
    at = b.to(tl.int64) * N + n
    row = B.to(tl.int64) * N
    place, given = n, there
    if POOL > 1:
        place, given = _behind_pooling(n, there, H, W, PH, PW, POOL)
    grad_o += b.to(tl.int64) * sample + place.to(tl.int64) * element + (T - 1).to(tl.int64) * step
    from_u = tl.zeros((BLOCK,), tl.float32)
    from_o = tl.zeros((BLOCK,), tl.float32)
    if STATE:
        from_u = tl.load(grad_u + at, there, 0.0).to(tl.float32)
    u = tl.zeros((BLOCK,), tl.float32)
    fired_word = tl.zeros((BLOCK,), tl.int32)
    inside_word = tl.zeros((BLOCK,), tl.int32)
    if KEEP == POTENTIALS:
        u = tl.load(us + (T - 1) * row + at, there, 0.0)
    else:
        fired_word, inside_word = _words(fired_words, inside_words, (T - 1) // 32 * row + at, there)
    for back in range(T):
        t = T - 1 - back
        delta = tl.load(grad_o, given, 0.0).to(tl.float32) / (POOL * POOL) + from_o
        if KEEP == POTENTIALS:
            h = CURVE(u - threshold, width)
        else:
            h = tl.where(((inside_word >> (t % 32)) & 1) != 0, 1 / width, 0.0)
        eps = delta * h + from_u
        tl.store(grad_x + t * row + at, eps.to(grad_x.dtype.element_ty), there)
        u_before = tl.zeros((BLOCK,), tl.float32)
        fired = tl.zeros((BLOCK,), tl.int1)
        if KEEP == BITS:
            if (t % 32 == 0) & (t > 0):
                fired_word, inside_word = _words(fired_words, inside_words, (t // 32 - 1) * row + at, there)
            fired = (((fired_word >> ((t + 31) % 32)) & 1) != 0) & (t > 0)
        else:
            if t > 0:
                u_before = tl.load(us + (t - 1) * row + at, there, 0.0)
                fired = u_before >= threshold
        if STATE:
            if t == 0:
                u_before = tl.load(u0 + at, there, 0.0).to(tl.float32)
                fired = tl.load(o0 + at, there, 0.0) > 0
        from_u = eps * tl.where(fired, keep1, keep0)
        from_o = eps * u_before * tl.where(fired, slope1, slope0)
        u = u_before
        grad_o -= step
    if STATE:
        tl.store(grad_u0 + at, from_u.to(grad_u0.dtype.element_ty), there)
        tl.store(grad_o0 + at, from_o.to(grad_o0.dtype.element_ty), there)


class Strides(NamedTuple):
    """Strides of currents or gradients `[T, B, N]`, in elements."""

    step: int
    sample: int
    element: int


def keeps_bits(T: int, neuron: Neuron) -> bool:
    """True if the neurons keep two bits for each step, not potentials, for the backward pass.

    They do with the rectangle and a reset that is not differentiated: no potential is asked for then.
    """
    return neuron.surrogate == "rectangle" and not (neuron.slope0 or neuron.slope1) and 2 * words(T) < T


def words(T: int) -> int:
    """Words of 32 bits for T steps."""
    return -(-T // 32)


def _keep(saved: Tensor | None) -> int:
    """Number of what is kept, told by the tensor that takes it."""
    if saved is None:
        return NONE.value
    return (BITS if saved.dtype == torch.int32 else POTENTIALS).value


def _grid(B: int, N: int) -> tuple[tuple[int], int]:
    """Programs, and neurons in each: few, where there are few, so that all of the device has work."""
    block = 1024 if B * N >= 1 << 20 else 256
    return (B * triton.cdiv(N, block),), block


def launch_forward(
    x: Tensor,
    size: tuple[int, int, int],
    strides: Strides,
    neuron: Neuron,
    saved: Tensor | None,
    *,
    o: Tensor | None = None,
    bits: Tensor | None = None,
    state: tuple[Tensor, Tensor] | None = None,
    u_last: Tensor | None = None,
) -> None:
    """Spikes of currents, as numbers into `o` or as packed bits into `bits`.

    Args:
        size: T, B, N; behind strides, `x` is `[T, B, N]`.
        saved: gets potentials, float32 `[T, B, N]`, which may be `x`, or bits, int32 `[2, words, B, N]`.
    """
    T, B, N = size
    grid, block = _grid(B, N)
    keep, us = _keep(saved), x if saved is None else saved
    first, second = us[:2] if keep == BITS.value else (us, us)
    with on(x):
        _forward[grid](
            x, *(state or (x, x)), x if o is None else o, x if bits is None else bits, us, first, second,
            x if u_last is None else u_last, T, B, N, *strides,
            neuron.keep0, neuron.keep1, neuron.threshold, neuron.width,
            KEEP=keep, PACK=bits is not None, STATE=state is not None, BLOCK=block, **ROUNDED_TWICE,
        )  # fmt: skip


def launch_backward(
    grad_o: Tensor,
    size: tuple[int, int, int],
    strides: Strides,
    neuron: Neuron,
    saved: Tensor,
    grad_x: Tensor,
    *,
    pooled: tuple[int, int, int] = (1, 1, 1),
    state: tuple[Tensor, ...] | None = None,
    state_grads: tuple[Tensor, Tensor] | None = None,
) -> None:
    """The gradient of `launch_forward`, into `grad_x` `[T, B, N]`.

    Args:
        pooled: k, H, W: `grad_o` is of maps of H x W after average pooling of k x k.
        state: grad_u, u, o: of the last potential, and the state that the forward pass was given.
    """
    T, B, N = size
    grid, block = _grid(B, N)
    keep, (k, H, W) = _keep(saved), pooled
    first, second = saved[:2] if keep == BITS.value else (saved, saved)
    with on(grad_o):
        _backward[grid](
            grad_o, state[0] if state else saved, saved, first, second,
            *(state[1:] if state else (saved, saved)), grad_x, *(state_grads or (saved, saved)),
            T, B, N, *strides, H, W, H // k, W // k, *neuron[2:-1],
            KEEP=keep, STATE=state is not None, CURVE=CURVES[neuron.surrogate],
            POOL=k, BLOCK=block, **ROUNDED_TWICE,
        )  # fmt: skip


def _flat(x: Tensor) -> tuple[Tensor, Strides]:
    """`[T, ...]` as `[T, N]`, copied only where no strides say the same."""
    x = x.reshape(len(x), -1)
    return x, Strides(x.stride(0), 0, x.stride(1))


def saved_like(x: Tensor, neuron: Neuron, save: bool) -> Tensor:
    """Memory for what `lif` keeps for its backward pass, not yet written."""
    if not save:
        return x.new_empty(0)
    if keeps_bits(len(x), neuron):
        return x.new_empty((2, words(len(x)), *x.shape[1:]), dtype=torch.int32)
    return x.new_empty(x.shape, dtype=torch.float32)


def lif(
    x: Tensor,
    u: Tensor,
    o: Tensor,
    neuron: Neuron,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `stbp::lif`: spikes, last potential and, with `save`, what `lif_backward` needs."""
    out = x.new_empty(x.shape)
    u_last = x.new_empty(u.shape)
    saved = saved_like(x, neuron, save)
    flat, strides = _flat(x)
    if flat.shape[1]:
        size = len(x), 1, flat.shape[1]
        state = u.contiguous(), o.contiguous()
        launch_forward(flat, size, strides, neuron, saved if save else None, o=out, state=state, u_last=u_last)
    return out, u_last, saved


def lif_backward(
    grad_o: Tensor,
    grad_u: Tensor,
    saved: Tensor,
    u: Tensor,
    o: Tensor,
    neuron: Neuron,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `stbp::lif_backward`: gradients of the currents and of the state."""
    grads = grad_o.new_empty(grad_o.shape), u.new_empty(u.shape), o.new_empty(o.shape)
    flat, strides = _flat(grad_o)
    if flat.shape[1]:
        size = len(grad_o), 1, flat.shape[1]
        state = grad_u.contiguous(), u.contiguous(), o.contiguous()
        launch_backward(flat, size, strides, neuron, saved, grads[0], state=state, state_grads=grads[1:])
    return grads
