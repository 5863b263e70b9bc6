"""A labelled set of images, whole in memory, and how images become the input of a network."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from stbp import ops
from stbp.config import Window
from stbp.data.augment import augment
from stbp.data.error import DataError
from stbp.ops.spikes import Spikes


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size with one label each.

    A batch is a slice by an index tensor: `s.images[index], s.labels[index]`. Two sets are equal only if they are
    the same object.

    Attributes:
        images: `[N, C, H, W]`, uint8, 0 (dark) to 255 (bright); N may be 0, the other sizes may not.
        labels: `[N]`, int64, an index into `classes` each.
        classes: the names of the K classes, K at least 1, no name twice.

    Raises:
        DataError: a field breaks one of these rules.
    """

    images: UInt8[Tensor, "N C H W"]
    labels: Int64[Tensor, " N"]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_tensor("images", self.images, torch.uint8, 4)
        _check_tensor("labels", self.labels, torch.int64, 1)
        if 0 in self.images.shape[1:]:
            raise DataError(f"images must have at least one channel, row and column, got {tuple(self.images.shape)}")
        if len(self.images) != len(self.labels):
            raise DataError(
                f"images and labels must be equally many, got {len(self.images)} images and {len(self.labels)} labels"
            )
        if not isinstance(self.classes, tuple) or not all(isinstance(name, str) for name in self.classes):
            raise DataError(f"classes must be a tuple of names, got {self.classes!r}")
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise DataError(f"classes must be at least one name and none twice, got {self.classes!r}")
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise DataError(
                f"labels must be in 0..{len(self.classes) - 1}, one for each class,"
                f" got {int(self.labels.min())}..{int(self.labels.max())}"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image: C, H, W."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def encoded_rate(self, how: Window, seed: int) -> float:
        """Mean brightness of all pixels, in [0, 1], however they become windows."""
        # exact: the sum of bytes is an integer
        return self.images.sum(dtype=torch.int64).item() / (255 * max(1, self.images.numel()))

    def encoded(
        self, ids: Int64[Tensor, " B"], how: Window, seed: int, epoch: int, device: torch.device
    ) -> Tensor | Spikes:
        """As `DataSet.window`: the images with these ids, augmented but in epoch 0, and encoded."""
        images, ids = self.images[ids].to(device), ids.to(device)
        return encode(augment(images, how, seed, epoch, ids) if epoch else images, how, seed, epoch, ids)

    def picture(self, sample: int) -> UInt8[Tensor, "C H W"]:
        """The image itself."""
        return self.images[sample]


def encode(
    images: UInt8[Tensor, "B *pixels"] | Float[Tensor, "B *pixels"],
    how: Window,
    seed: int,
    epoch: int,
    ids: Int64[Tensor, " B"],
) -> Tensor | Spikes:
    """The network's input `[T, B, ...]` for images with these ids; epoch 0 is kept for evaluation.

    Args:
        images: `[B, ...]`, uint8, or float with values in [0, 1].
    """
    if how.encoding == "static":
        return ops.static(images, how.T)
    return ops.bernoulli(images, how.T, seed, epoch, ids)


def _check_tensor(field: str, value: object, dtype: torch.dtype, ndim: int) -> None:
    if not isinstance(value, Tensor):
        raise DataError(f"{field} must be a {dtype} tensor of {ndim} dimensions, got {type(value).__name__}")
    if value.dtype != dtype or value.ndim != ndim:
        raise DataError(
            f"{field} must be a {dtype} tensor of {ndim} dimensions, got {value.dtype} of shape {tuple(value.shape)}"
        )
