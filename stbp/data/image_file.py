"""One image file as a network wants it; training on a folder and `stbp predict` see the same pixels."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from stbp.data.error import DataError


class NoImageError(DataError):
    """The file is of no format that Pillow knows; other faults of an image file are plain `DataError`s."""


def read_image(file: Path, shape: tuple[int, int, int], invert: bool = False) -> UInt8[Tensor, "C H W"]:
    """An image file as grey (C = 1) or RGB, scaled to H x W whatever its own proportions.

    If it is a whole number of times as high and as wide, each new pixel is the mean of its block; otherwise Pillow's
    bilinear filter resamples it, widened where it shrinks, so that no pixel is skipped.

    Args:
        invert: turn light and dark round, for dark strokes on a light ground.

    Raises:
        DataError, FileNotFoundError: the file is missing, damaged or no image; the message names it.
    """
    channels, height, width = shape
    if not file.exists():
        raise FileNotFoundError(f"{file}: there is no such file")
    try:
        with Image.open(file) as opened:
            image = _eight_bits(opened).convert("L" if channels == 1 else "RGB")
            blocks = image.width % width == 0 and image.height % height == 0
            image = image.resize((width, height), Image.Resampling.BOX if blocks else Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        kind = NoImageError if isinstance(error, UnidentifiedImageError) else DataError
        raise kind(f"{file} cannot be read as an image: {error}") from error
    pixels = torch.from_numpy(np.array(image)).view(height, width, channels).permute(2, 0, 1).contiguous()
    return 255 - pixels if invert else pixels


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bits; what is transparent shows the ground: white behind dark strokes, else black."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image
    drawn = image.convert("RGBA")
    alpha = np.asarray(drawn.getchannel("A"), dtype=np.float64)
    strokes = (np.asarray(drawn.convert("RGB").convert("L")) * alpha).sum() / max(1.0, alpha.sum())
    ground = Image.new("RGBA", drawn.size, "white" if strokes < 128 else "black")
    return Image.alpha_composite(ground, drawn)
