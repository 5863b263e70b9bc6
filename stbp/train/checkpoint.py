"""Checkpoints: one safetensors file each, with everything that is no tensor as JSON in its header."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stbp.files import write_atomically

FORMAT = 1
FILE = "checkpoint.safetensors"


@dataclass
class Checkpoint:
    """Tensors by name, and everything else as JSON: experiment, progress, history."""

    tensors: dict[str, Tensor]
    header: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors that belong to `network`, `live` or `optimizer`, without that prefix."""
        return {k.removeprefix(f"{name}."): v for k, v in self.tensors.items() if k.startswith(f"{name}.")}

    def load(self, net: torch.nn.Module, name: str) -> None:
        """Put the weights and buffers of `network` or `live` into a network.

        Raises:
            ValueError: it is another network; the message names the first difference.
        """
        there, here = self.part(name), net.state_dict()
        for key in [*here, *there]:
            saved, wanted = (list(part[key].shape) if key in part else "nothing" for part in (there, here))
            if saved != wanted:
                raise ValueError(f"the checkpoint is of another network: of {key} it holds {saved}, not {wanted}")
        net.load_state_dict(there)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    header = {**checkpoint.header, "format": FORMAT, "sha256": _digest(tensors)}
    write_atomically(path, safetensors.torch.save(tensors, {"stbp": json.dumps(header)}))


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ValueError: the file is damaged, is no checkpoint of stbp, or is of a later format.
        FileNotFoundError: there is none.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path}: the run was stopped before its first epoch ended")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            # a copy: the file's memory is mapped, and the next checkpoint replaces the file
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        header = json.loads(metadata["stbp"])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged or no checkpoint of stbp ({error}); delete it and train again") from error
    if header.get("format", 0) > FORMAT:
        raise ValueError(f"{path} has format {header['format']}, this version of stbp reads {FORMAT}; update stbp")
    if header.pop("sha256", None) != _digest(tensors):
        raise ValueError(f"{path} is damaged (its checksum does not match its weights); delete it and train again")
    return Checkpoint(tensors, header)


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
