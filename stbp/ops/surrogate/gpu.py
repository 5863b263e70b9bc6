"""The curves in place of the spike's derivative, for Triton: `curves.py` is the definition.

Triton is needed to import this file. To add a curve: its function, and its line in `CURVES`.
"""

import triton
import triton.language as tl


@triton.jit
def rectangle(v, width):
    return tl.where(tl.abs(v) < 0.5 * width, 1 / width, 0.0)


@triton.jit
def polynomial(v, width):
    return tl.maximum(1 / width - tl.abs(v) / (width * width), 0.0)


@triton.jit
def sigmoid(v, width):
    z = tl.exp(-tl.abs(v) * (4 / width))
    return (4 / width) * z / ((1 + z) * (1 + z))


@triton.jit
def gaussian(v, width):
    return tl.exp(-3.141592653589793 * (v / width) * (v / width)) / width


# The function of a curve is compiled into the kernel that calls it.
CURVES = {"rectangle": rectangle, "polynomial": polynomial, "sigmoid": sigmoid, "gaussian": gaussian}
