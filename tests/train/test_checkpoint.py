from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stbp.files import write_atomically
from stbp.train import checkpoint
from stbp.train.checkpoint import Checkpoint


def example() -> Checkpoint:
    return Checkpoint(
        {"network.0.weight": torch.arange(6.0).view(2, 3), "step": torch.tensor(3.0)}, {"epoch": 2, "x": 0.1}
    )


def test_what_was_saved_is_loaded(tmp_path: Path):
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, example())
    loaded = checkpoint.load(path)
    assert loaded.header == {"epoch": 2, "x": 0.1, "format": 1}
    assert loaded.tensors.keys() == example().tensors.keys()
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in example().tensors.items())
    assert [file.name for file in tmp_path.iterdir()] == ["c.safetensors"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1), flip=st.integers(0, 10_000), truncate=st.booleans())
def test_a_damaged_file_is_named_never_loaded(tmp_path: Path, cut, flip, truncate):
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, example())
    content = bytearray(path.read_bytes())
    if truncate:
        content = content[: int(cut * (len(content) - 1))]
    else:
        content[flip % len(content)] ^= 1 << (flip % 8)
    path.write_bytes(content)
    # a flip inside the JSON may leave valid JSON; then the tensors are what they were
    in_header = not truncate and 8 <= flip % len(content) < len(content) - 28
    try:
        loaded = checkpoint.load(path)
    except ValueError as caught:
        message = str(caught)
    else:
        assert in_header
        message = str(path) if loaded.tensors.keys() == example().tensors.keys() else ""
        assert all(torch.equal(tensor, example().tensors[name]) for name, tensor in loaded.tensors.items())
    assert str(path) in message


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*nowhere"):
        checkpoint.load(tmp_path / "nowhere")


def test_a_later_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "c.safetensors"
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    checkpoint.save(path, example())
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    with pytest.raises(ValueError, match="has format 2, this version of stbp reads 1"):
        checkpoint.load(path)


def test_a_write_that_fails_before_it_is_on_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(descriptor: int) -> None:
        raise OSError("no space left on device")

    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
