"""Labels for image files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from stbp.data.images import encode
from stbp.evaluation import Run, predict


@dataclass(frozen=True)
class Prediction:
    """What a network says of one file."""

    file: str
    # The class that fired most; of several, the first.
    label: str
    # Spikes of every class in the window.
    counts: dict[str, int]
    # What the reader should know before trusting it; empty as a rule.
    remark: str


def predict_files(run: Run, files: Sequence[Path], invert: bool = False) -> list[Prediction]:
    """Label image files; each one's spikes depend on its pixels and the run's seed alone.

    Args:
        invert: turn light and dark round, for dark strokes on a light ground.

    Raises:
        ValueError, FileNotFoundError: a file is missing or no image; the message names it.
    """
    images = [read_image(file, run.shape, invert) for file in files]
    device = next(run.network.parameters()).device
    ids = torch.zeros(1, dtype=torch.int64, device=device)
    predictions = []
    for file, image in zip(files, images, strict=True):
        with torch.no_grad():
            o = run.network(encode(image[None].to(device), run.experiment, 0, ids))
        counts = o.sum(0)[0].to(torch.int64).tolist()
        label = run.classes[int(predict(o)[0])]
        predictions.append(
            Prediction(str(file), label, dict(zip(run.classes, counts, strict=True)), _remark(image, counts))
        )
    return predictions


def read_image(file: Path, shape: tuple[int, int, int], invert: bool = False) -> UInt8[Tensor, "C H W"]:
    """An image file as the network wants it: grey or RGB, scaled to H x W.

    Raises:
        ValueError, FileNotFoundError: the file is missing or no image; the message names it.
    """
    channels, height, width = shape
    if not file.exists():
        raise FileNotFoundError(f"{file}: there is no such file")
    try:
        with Image.open(file) as opened:
            image = _eight_bits(opened).convert("L" if channels == 1 else "RGB")
            image = image.resize((width, height), Image.Resampling.BOX)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} cannot be read as an image: {error}") from error
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


def _remark(image: Tensor, counts: list[int]) -> str:
    if max(counts) == 0:
        return "no output neuron fired: the label is a guess"
    border = torch.cat([image[..., 0, :], image[..., -1, :], image[..., 0], image[..., -1]], -1)
    if border.float().mean() > 127:
        return "the ground is light; the built-in data sets have light strokes on dark: try --invert"
    return ""
