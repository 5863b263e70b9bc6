"""Counter-based random numbers (Philox 4x32, 10 rounds) and the Bernoulli encoding of images.

Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC11. A number depends on its key and
counter alone, so a sample's spikes do not depend on batch, order, workers or device, and there is no generator state.
"""

import torch
from torch import Tensor

from stbp.ops.spikes import pack_bits

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)

# Streams of one seed (the key's second word): independent uses never share a random number.
ENCODE, SHUFFLE, WEIGHTS, SPLIT, EVENTS, SENSOR, SEQUENCES, BIASES, IMAGES = range(9)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Philox4x32-10: four 32-bit words of counter and two of key give four random 32-bit words.

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
    """n random 32-bit words as int64 `[n]`, the same for the same seed, stream and index.

    Args:
        first: number of the first one, a multiple of 4: long sequences can be drawn part by part.
    """
    block = torch.arange(first // 4, first // 4 - (-n // 4))
    zero = torch.zeros((), dtype=torch.int64)
    return torch.stack(philox((block, zero, zero, zero + index), (seed, stream)), -1).flatten()[:n]


def bernoulli(image: Tensor, T: int, seed: int, epoch: int, sample: Tensor) -> Tensor:
    """Spikes `1[r < p]`, one independent r in [0, 1) for every pixel, step, sample, epoch and seed.

    r is the upper 24 bits of the Philox word t % 4 at counter (pixel, t // 4, sample, epoch) and key (seed, ENCODE),
    as a fraction; so p = 0 never fires, p = 1 always does, and a zero pixel needs no number.

    Args:
        image: firing probabilities `[B, N]`, float in [0, 1], or uint8, which stands for value/255 in float32.
        sample: int64 `[B]`.

    Returns:
        packed spikes, uint8 `[T, B, ceil(N/8)]`.
    """
    p = image.to(torch.float32) / 255 if image.dtype == torch.uint8 else image
    level = torch.ceil(p.double() * 2**24).to(torch.int64)  # r < p  <=>  24-bit word < level
    rows, pixels = level.nonzero(as_tuple=True)
    blocks = torch.arange(-(-T // 4), device=image.device)[:, None]
    epoch_word = torch.full((), epoch, dtype=torch.int64, device=image.device)
    words = torch.stack(philox((pixels, blocks, sample[rows], epoch_word), (seed, ENCODE)), 1)  # [T/4, 4, non-zero]
    fired = (words >> 8).flatten(0, 1)[:T] < level[rows, pixels]
    o = torch.zeros((T, *image.shape), dtype=torch.bool, device=image.device)
    o[:, rows, pixels] = fired
    return pack_bits(o)
