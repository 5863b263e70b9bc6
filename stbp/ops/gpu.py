"""Parts that the Triton kernels share: the interpreter, products with spikes.

Triton is needed to import this file; `dispatch.triton` says whether an operator may. Under `TRITON_INTERPRET=1`, set
before the first import, the same kernels run on the CPU: slow, for tests.
"""

import contextlib
from typing import Any

import torch
import triton
import triton.language as tl

INTERPRETED = triton.knobs.runtime.interpret
SPLIT, FLOAT32, TF32 = (tl.constexpr(i) for i in range(3))  # how a float32 weight is multiplied with a spike
NONE, POTENTIALS, BITS = (tl.constexpr(i) for i in range(3))  # what the neurons keep for the backward pass

# A product and the sum behind it round twice, as in the reference: one rounding can decide a spike.
ROUNDED_TWICE = {"enable_fp_fusion": False}


def on(x: torch.Tensor) -> contextlib.AbstractContextManager[Any]:
    """Launch where the tensor is: Triton takes the current device."""
    return torch.cuda.device_of(x) if x.is_cuda else contextlib.nullcontext()


@triton.jit
def packed(fired, BLOCK: tl.constexpr):
    """BLOCK spikes, eight in a byte, as `Spikes` has them."""
    ones = tl.reshape(fired.to(tl.int32), (BLOCK // 8, 8)) << tl.arange(0, 8)[None, :]
    return tl.sum(ones, 1).to(tl.uint8)


@triton.jit
def product(a, w, total, HOW: tl.constexpr, INTERPRET: tl.constexpr):
    """total + a @ w for small whole numbers `a` (spikes, or numbers of spikes up to 256) and float32 `w`.

    SPLIT: a is exact in bfloat16, and w is the sum of three bfloat16 numbers of 8 bits each, unless its last bits are
    below bfloat16's smallest number (|w| under some 1e-30): so every product on the tensor cores is exact, and what
    error there is comes from the float32 sums.
    """
    if HOW == SPLIT:
        first = w.to(tl.bfloat16)
        left = w - first.to(tl.float32)
        second = left.to(tl.bfloat16)
        third = (left - second.to(tl.float32)).to(tl.bfloat16)
        a = a.to(tl.float32).to(tl.bfloat16)
        if INTERPRET:  # whose products take bfloat16 for whole numbers
            a, first = a.to(tl.float32), first.to(tl.float32)
            second, third = second.to(tl.float32), third.to(tl.float32)
        total = tl.dot(a, third, total)  # the small parts first
        total = tl.dot(a, second, total)
        total = tl.dot(a, first, total)
    elif HOW == FLOAT32:
        total = tl.dot(a.to(tl.float32), w, total, input_precision="ieee")
    else:
        total = tl.dot(a.to(tl.float32), w, total, input_precision="tf32")
    return total
