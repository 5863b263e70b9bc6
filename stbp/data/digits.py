"""The digits that come with the package: 1,797 scans of 8x8 pixels.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49, CC BY 4.0 (`digits.LICENSE.txt`). Each value counts the dark pixels, 0 to 16, in a
4x4 block of a 32x32 scan.

The split is by sample, not by writer: of each class, the 36 indices whose decimal text has the smallest SHA-256 are
test samples (`digits_test.txt`). It depends on no random generator, so anyone can draw it again.
"""

from importlib.resources import files

import numpy as np
import torch

from stbp.data.images import ImageSet

CLASSES = tuple("0123456789")


def read() -> tuple[ImageSet, ImageSet]:
    """The 1,437 training and 360 test images, `[N, 1, 8, 8]`, scaled from 0..16 to 0..255, in their original order."""
    folder = files("stbp.data")
    with (folder / "digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        values, labels = arrays["images"], arrays["labels"]
    lines = (folder / "digits_test.txt").read_text(encoding="ascii").splitlines()
    is_test = np.zeros(len(labels), dtype=bool)
    is_test[[int(line) for line in lines if not line.startswith("#")]] = True
    bright = np.rint(np.arange(17) * 255 / 16).astype(np.uint8)[values][:, None]
    train, test = (
        ImageSet(torch.from_numpy(bright[part]), torch.from_numpy(labels[part].astype(np.int64)), CLASSES)
        for part in (~is_test, is_test)
    )
    return train, test
