"""The Bernoulli encoding of images: the definition of right for every kernel."""

import torch
from torch import Tensor

from stbp.ops.philox import ENCODE, philox
from stbp.ops.spikes import pack_bits


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
