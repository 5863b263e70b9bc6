import subprocess
import sys

import jaxtyping
import pytest
import torch

import stbp.data
from stbp.data import DataError, ImageSet

IMAGES = torch.zeros(3, 1, 4, 5, dtype=torch.uint8)
LABELS = torch.tensor([0, 1, 1])


def test_a_valid_set_keeps_its_tensors_and_knows_its_length():
    images = ImageSet(IMAGES, LABELS, ("a", "b"))
    assert len(images) == 3
    assert images.images is IMAGES
    assert images.labels is LABELS


def test_an_empty_set_is_valid():
    assert len(ImageSet(IMAGES[:0], LABELS[:0], ("a",))) == 0


def test_a_set_cannot_be_changed():
    with pytest.raises(AttributeError):
        ImageSet(IMAGES, LABELS, ("a", "b")).labels = LABELS  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"images": IMAGES.float()}, "images must be a torch.uint8 tensor of 4 dimensions, got torch.float32"),
        ({"images": IMAGES[0]}, r"images must be .* of shape \(1, 4, 5\)"),
        ({"images": IMAGES.numpy()}, "images must be .* got ndarray"),
        ({"images": IMAGES[:, :, :0]}, "at least one channel, row and column"),
        ({"labels": LABELS.int()}, "labels must be a torch.int64 tensor of 1 dimensions, got torch.int32"),
        ({"labels": LABELS[:, None]}, r"labels must be .* of shape \(3, 1\)"),
        ({"labels": LABELS[:2]}, "3 images and 2 labels"),
        ({"labels": LABELS + 1}, r"labels must be in 0\.\.1.* got 1\.\.2"),
        ({"labels": LABELS - 1}, r"labels must be in 0\.\.1.* got -1\.\.0"),
        ({"classes": ["a", "b"]}, "classes must be a tuple of names"),
        ({"classes": (0, 1)}, "classes must be a tuple of names"),
        ({"classes": ("a", "a")}, "none twice"),
        ({"classes": ()}, "at least one name"),
    ],
)
def test_each_broken_field_is_named_with_its_rule_and_value(fields, text, monkeypatch):
    # the test run checks annotations before the set sees its fields; a user's run does not
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(DataError, match=text):
        ImageSet(**({"images": IMAGES, "labels": LABELS, "classes": ("a", "b")} | fields))


def test_importing_the_room_and_its_error_does_not_import_torch():
    code = "import sys, stbp.data; stbp.data.DataError; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = stbp.data.lod


def test_the_public_names_are_listed():
    assert {"load", "ImageSet", "DataError"} <= set(dir(stbp.data))
