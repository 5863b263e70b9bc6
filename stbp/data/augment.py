"""Random changes to training images: shifts, elastic distortion, dropped pixels.

All is done in whole numbers, or in floating point that holds them exactly, so what becomes of an image depends on
(seed, epoch, sample id) and its pixels alone: not on the batch around it, the number of threads or the device. The
random numbers are Philox words at counter (block, use, sample, epoch) and key (seed, IMAGES).
"""

from functools import cache

import torch
from jaxtyping import Bool, Float64, Int64, UInt8
from torch import Tensor

from stbp.config import Window
from stbp.ops.philox import IMAGES, philox

_BITS = 8
FINE = 2**_BITS
"""Parts of a pixel in which displacements are whole numbers."""

SIGMA = 4
"""Pixels over which the displacements of elastic distortion are alike: the Gaussian's standard deviation."""

_SHIFT, _ELASTIC, _DROP = range(3)  # uses of random numbers
_WEIGHT = 2**12  # the Gaussian's values are multiples of 1/_WEIGHT: their sums are exact in any order
_SPREAD = 2**16 / 3**0.5  # standard deviation of the odd numbers between -2^16 and 2^16


def augment(
    images: UInt8[Tensor, "B C H W"], how: Window, seed: int, epoch: int, ids: Int64[Tensor, " B"]
) -> UInt8[Tensor, "B C H W"]:
    """The images with these ids as an epoch of training sees them; unchanged where `how` asks for no change."""
    height, width = images.shape[2:]
    if how.shift or how.elastic:
        field = shifts(ids, how.shift, seed, epoch)
        if how.elastic:
            field = field + elastic_field(ids, height, width, how.elastic, seed, epoch)
        images = moved(images, field)
    if how.drop:
        images = images * kept(ids, height * width, how.drop, seed, epoch).view(-1, 1, height, width)
    return images


def shifts(ids: Int64[Tensor, " B"], most: int, seed: int, epoch: int) -> Int64[Tensor, "B 2 1 1"]:
    """Along x and along y a whole number of pixels from -most to most, all equally likely, in 1/FINE of a pixel."""
    words = _words(ids, 1, _SHIFT, seed, epoch)[:, :2, None, None]
    return FINE * ((words * (2 * most + 1) >> 32) - most)


def elastic_field(
    ids: Int64[Tensor, " B"], height: int, width: int, spread: float, seed: int, epoch: int
) -> Int64[Tensor, "B 2 H W"]:
    """Displacements along x and along y of every pixel, in 1/FINE of a pixel: smooth noise of mean 0.

    The random displacement field of Simard, Steinkraus, Platt, "Best practices for convolutional neural networks",
    ICDAR 2003, smoothed by a Gaussian of SIGMA = 4 pixels as theirs. Its uniform random numbers lie SIGMA pixels apart,
    which the Gaussian cannot tell from one in every pixel, and reach two SIGMA beyond the border; the weights of each
    pixel have norm 1, so the displacement's standard deviation is `spread` pixels everywhere. Theirs (alpha = 34) is
    1.4.
    """
    down, across = _smoothing(height).to(ids.device), _smoothing(width).to(ids.device)
    knots = down.shape[1] * across.shape[1]
    words = _words(ids, -(-knots // 4), _ELASTIC, seed, epoch)[:, :knots]
    halves = torch.stack([words >> 16, words & 0xFFFF], 1)  # of each word one for x, one for y
    noise = (2 * halves + 1 - 2**16).double().view(-1, 2, down.shape[1], across.shape[1])
    smooth = ((noise @ across.T).mT @ down.T).mT  # two large products; `down @ noise` would be many small ones
    return (smooth * (spread * FINE / (_SPREAD * _WEIGHT**2))).round().long()


@cache
def _smoothing(length: int) -> Float64[Tensor, "length knots"]:
    """Weights of the knots in each pixel along one axis, times _WEIGHT, whole numbers."""
    knots = torch.arange(-2 * SIGMA, length + 3 * SIGMA, SIGMA)
    weights = torch.exp(-((torch.arange(length)[:, None] - knots).double() ** 2) / (2 * SIGMA**2))
    return (weights / weights.norm(dim=1, keepdim=True) * _WEIGHT).round()


def moved(images: UInt8[Tensor, "B C H W"], field: Int64[Tensor, "B 2 _ _"]) -> UInt8[Tensor, "B C H W"]:
    """Images whose pixels have moved by the displacements along x and y, bilinear between pixels, zeros from outside.

    Args:
        field: in 1/FINE of a pixel, `[B, 2, H, W]` or one for all pixels, `[B, 2, 1, 1]`.
    """
    batch, channels, height, width = images.shape
    x = (torch.arange(width, device=images.device) * FINE - field[:, 0]).clamp_(-FINE, width * FINE)
    y = (torch.arange(height, device=images.device)[:, None] * FINE - field[:, 1]).clamp_(-FINE, height * FINE)
    padded = torch.nn.functional.pad(images, (1, 2, 1, 2)).flatten(2)  # x and y reach from -1 to width + 1
    place = (((y >> _BITS) + 1) * (width + 3) + (x >> _BITS) + 1).flatten(1)[:, None]
    x, y = (x & (FINE - 1)).int(), (y & (FINE - 1)).int()
    found = torch.full((), FINE**2 // 2, dtype=torch.int32, device=images.device)  # one half, for rounding
    for below, share_y in enumerate((FINE - y, y)):
        for right, share_x in enumerate((FINE - x, x)):
            share = (share_y * share_x).flatten(1)[:, None]
            if share.any():
                corner = padded.gather(2, (place + below * (width + 3) + right).expand(-1, channels, -1))
                found = found + share * corner
    return (found >> 2 * _BITS).to(torch.uint8).expand(batch, channels, -1).view(images.shape)


def kept(ids: Int64[Tensor, " B"], pixels: int, drop: float, seed: int, epoch: int) -> Bool[Tensor, "B pixels"]:
    """Mask of pixels that stay, each with probability 1 - drop, to 2^-16.

    Pixel n has half of word n // 2, low before high.
    """
    words = _words(ids, -(-pixels // 8), _DROP, seed, epoch)
    halves = torch.stack([words & 0xFFFF, words >> 16], -1).flatten(1)[:, :pixels]
    return halves >= round(drop * 2**16)


def _words(ids: Tensor, blocks: int, use: int, seed: int, epoch: int) -> Int64[Tensor, "B words"]:
    """4 random 32-bit words in every block, for every sample."""
    block = torch.arange(blocks, device=ids.device)
    constants = [torch.full((), value, dtype=torch.int64, device=ids.device) for value in (use, epoch)]
    return torch.stack(philox((block, constants[0], ids[:, None], constants[1]), (seed, IMAGES)), -1).flatten(1)
