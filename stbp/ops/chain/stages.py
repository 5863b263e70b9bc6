"""Which synapses the compiled kernels take, and the stages that stand for them."""

from collections.abc import Sequence

from stbp.ops.chain.call import CONV, LINEAR, LOOKUP, Stage

MAX_KERNEL, MAX_POOL = 7, 11
LOOKUP_ROWS = 16
LOOKUP_BYTES = 48 << 10  # of tables: what stays in the first cache beside the rows of the input
LOOKUP_WIDTH = 56  # pixels of a row that fit into one word, padding included


def linear_stage(size: Sequence[int], outputs: int, bias: bool, pool: int = 1) -> Stage:
    """The stage of a linear synapse behind maps `(C, H, W)`, average pooling in front, or behind `(N,)`."""
    maps, height, width = (*size, 1, 1)[:3]
    return Stage(LINEAR, maps, height, width, pool, outputs, 1, 0, 1, 1, 1, 1, int(bias), 0, 0)


def conv_stage(
    size: Sequence[int],
    weight: Sequence[int],
    bias: bool,
    stride: int = 1,
    padding: int = 0,
    pool: int = 1,
    first: bool = False,
) -> Stage | None:
    """The stage of a convolution of maps `(C, H, W)` with a weight `[M, C, k, k]`; None if the kernels do not take it.

    Args:
        first: whether its input is the network's own bits, so that a lookup of whole rows of pixels will do.
    """
    M, C, k, other = weight
    height, width = (side // pool + 2 * padding - k + 1 for side in size[1:])
    if stride != 1 or k != other or k > MAX_KERNEL or min(height, width) < 1:
        return None
    tables = C * k * 2**k * -(-M // 16) * 64
    fits = C * k <= LOOKUP_ROWS and tables <= LOOKUP_BYTES and size[2] + 2 * padding <= LOOKUP_WIDTH
    kind = LOOKUP if first and pool == 1 and M <= 16 and fits else CONV
    return Stage(kind, size[0], size[1], size[2], pool, M, k, padding, height, width, 1, 1, int(bias), 0, 0)
