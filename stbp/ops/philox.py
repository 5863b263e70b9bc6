"""Counter-based random numbers: Philox 4x32, 10 rounds.

Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC11. A number depends on its key and
counter alone, so a sample's spikes do not depend on batch, order, workers or device, and there is no generator state.
"""

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)

# Streams of one seed (the key's second word): independent uses never share a random number.
ENCODE, SHUFFLE, WEIGHTS, SPLIT, EVENTS, SENSOR, SEQUENCES, BIASES, IMAGES, TEST = range(10)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Return the four random 32-bit words that Philox4x32-10 makes of four of counter and two of key.

    Args:
        counter: int64 tensors of values in [0, 2^32) that broadcast together.

    Returns:
        four int64 tensors of values in [0, 2^32).
    """
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    k0, k1 = key
    for _ in range(10):
        # the 64-bit products wrap as signed numbers; shift and mask recover both unsigned halves
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c2 = ((p1 >> 32) & _WORD) ^ c1 ^ k0, ((p0 >> 32) & _WORD) ^ c3 ^ k1
        c1, c3 = p1 & _WORD, p0 & _WORD
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def random_words(n: int, seed: int, stream: int, index: int = 0, first: int = 0) -> Tensor:
    """Return n random 32-bit words as int64 `[n]` on the CPU, the same for the same seed, stream and index.

    Args:
        first: number of the first one, a multiple of 4: long sequences can be drawn part by part.
    """
    block = torch.arange(first // 4, first // 4 - (-n // 4), device="cpu")
    zero = torch.zeros((), dtype=torch.int64, device="cpu")
    return torch.stack(philox((block, zero, zero, zero + index), (seed, stream)), -1).flatten()[:n]
