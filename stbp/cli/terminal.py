"""Flags and output that commands have in common."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from tyro.conf import Positional

Device = Literal["auto", "cpu", "cuda"]
Json = Annotated[bool, tyro.conf.arg(help="Print JSON.")]
RunFolder = Annotated[Positional[Path], tyro.conf.arg(metavar="RUN", help="Folder of a run.")]
DataFolder = Annotated[
    Path | None, tyro.conf.arg(metavar="DIR", help="Folder that holds data sets; otherwise STBP_DATA, then a download.")
]
Threads = Annotated[int | None, tyro.conf.arg(help="Threads of the processor; all of its cores by default.")]


def arguments() -> list[str]:
    """The words behind `stbp`, without --debug."""
    return [word for word in sys.argv[1:] if word != "--debug"]


def say(*parts: Any, width: int | None = None) -> None:
    """Print for people: with markup, and without breaking lines that they may want to copy."""
    Console(highlight=False, soft_wrap=width is None, width=width).print(*parts)


def print_json(content: Any) -> None:
    """Print an indented JSON document."""
    print(json.dumps(content, indent=2))


def set_threads(threads: int | None) -> None:
    """Let torch compute with so many threads.

    Raises:
        ValueError: there would be none.
    """
    if threads is None:
        return
    if threads < 1:
        raise ValueError(f"threads must be at least 1; got {threads}")
    import torch

    torch.set_num_threads(threads)
