"""Peak memory of training: a process of its own for each subject."""

import ctypes
import dataclasses
import gc
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import stbp
from stbp.bench.subject import ENTRIES, Task, Weights, entries

STEPS = 3


def store(folder: Path, task: Task, weights: Weights, x: Tensor, y: Tensor) -> None:
    """Write down what the processes are to work on."""
    tensors = {f"weight{i:02}": w for i, w in enumerate(weights)}
    save_file({**tensors, "x": x, "y": y}, folder / "work.safetensors")
    content = {"task": dataclasses.asdict(task), "threads": torch.get_num_threads()}
    (folder / "work.json").write_text(json.dumps(content))


def measure(folder: Path, name: str) -> float | None:
    """MiB above imports and input batch at the highest moment of three steps; None where the system does not tell."""
    root = str(Path(stbp.__file__).resolve().parent.parent)
    path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
    command = [sys.executable, "-c", "from stbp.bench import memory; memory.report()", str(folder), name]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise RuntimeError(f"the process that measures the memory of {name} failed: {last[0]}")
    return json.loads(done.stdout.splitlines()[-1])


def _status(field: str) -> float:
    """A size in /proc/self/status, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"no {field} in /proc/self/status")


def _steps_above_start(folder: Path, name: str) -> float | None:
    content = json.loads((folder / "work.json").read_text())
    torch.set_num_threads(content["threads"])
    task = Task(**content["task"])
    own = any(entry.name == name for entry in ENTRIES)
    entry = next(entry for entry in entries(peers=not own) if entry.name == name)
    tensors = {k: t.clone() for k, t in load_file(folder / "work.safetensors").items()}
    weights = [tensors[k] for k in sorted(tensors) if k.startswith("weight")]
    # a tiny task of the same kind first: what libraries import or set up on first use is no network's memory
    tiny = Task("28x28-2C5-P2-4-10" if len(task.shape) == 3 else "8-4-10", T=2, batch=2)
    warm = entry.build(tiny)
    warm.start(list(tiny.build().parameters()), 0.0)
    warm.step(*warm.place(torch.ones(2, 2, *tiny.shape), torch.zeros(2, dtype=torch.int64)))
    placed = warm.place(tensors["x"], tensors["y"])
    del warm
    gc.collect()
    if not Path("/proc/self/clear_refs").exists():
        return None
    with suppress(OSError, AttributeError):  # free what the heap holds back, so that no step hides in it
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the highest size so far is the present one
    before = _status("VmRSS")
    subject = entry.build(task)
    subject.start(weights, 0.0)
    for _ in range(STEPS):
        subject.step(*placed)
    return round(_status("VmHWM") - before, 1)


def report() -> None:
    """In the process of its own: the figure on the last line."""
    print(json.dumps(_steps_above_start(Path(sys.argv[1]), sys.argv[2])))
