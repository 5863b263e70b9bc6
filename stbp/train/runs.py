"""The folder of a run: what is in it, who may write to it, and how it is read again.

`config.json` (the experiment), `metrics.jsonl` (a line per epoch), `checkpoint.safetensors`, and at the end
`summary.json`. Each is written whole or not at all.
"""

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import stbp
from stbp.config import Experiment, Own, default
from stbp.files import write_atomically, write_json
from stbp.train import checkpoint
from stbp.train.checkpoint import Checkpoint
from stbp.train.health import Finding

Settings = Experiment | Own


def claim(folder: Path, settings: Settings, resume: bool, say: Callable[[str], None]) -> Checkpoint | None:
    """Make the folder ready for a run with these settings, or to go on with the run in it.

    Returns:
        the checkpoint to go on from, or None to start at the beginning.

    Raises:
        ValueError: the folder holds a run and `resume` is not set, or a run with other settings.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name another folder with --out")
    config = folder / "config.json"
    if not config.exists():
        if resume:
            say(f"{folder} holds no run to go on with; starting at the beginning")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(config, settings.flat())
        return None
    if not resume:
        raise ValueError(
            f"{folder} already holds a run; add --resume to go on with it, or name another folder with --out"
        )
    _check_same(folder, read_settings(folder), settings)
    write_json(config, settings.flat())
    if not (folder / checkpoint.FILE).exists():
        say(f"the run in {folder} was stopped before its first checkpoint; starting at the beginning")
        return None
    saved = _load(folder, settings)
    _write_metrics(folder, saved)  # a kill between checkpoint and metrics leaves the last epoch out of them
    return saved


def unfinish(folder: Path) -> None:
    """Take away the summary of a shorter run that is about to be made longer."""
    (folder / "summary.json").unlink(missing_ok=True)


def _load(folder: Path, settings: Settings) -> Checkpoint:
    """The checkpoint in a folder, if it is one of a run with these settings."""
    saved = checkpoint.load(folder / checkpoint.FILE)
    for name, value in settings.flat().items():
        there = saved.header["experiment"].get(name, default(name))  # of before there was the field: its default
        if there != value and name != "epochs":
            raise ValueError(
                f"{folder / checkpoint.FILE} is of a run with {name} {there!r}, config.json beside it says {value!r}: "
                "one of the two was changed or is of another run"
            )
    return saved


def _check_same(folder: Path, stored: Settings, asked: Settings) -> None:
    """Only the number of epochs may grow, and only where the learning rate does not depend on it."""
    before, now = stored.flat(), asked.flat()
    for name in {**now, **before}:
        there, here = before.get(name), now.get(name)
        if name == "epochs" and asked.epochs > stored.epochs and stored.training.rates.schedule != "cosine":
            continue
        if there != here:
            reason = " (with schedule cosine the learning rate depends on it)" if name == "epochs" else ""
            raise ValueError(
                f"cannot go on with {folder}: its {name} is {there!r}, not {here!r}{reason}; "
                f"leave {name} as it is, or start a run of its own with --out"
            )


def read_settings(folder: Path) -> Settings:
    """The settings of the run in a folder: an experiment, or what a network of one's own was trained with.

    Raises:
        FileNotFoundError: no run there. ValueError: its config is damaged.
    """
    path = folder / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no run: there is no {path.name} in it")
    try:
        fields = json.loads(path.read_text())
        return (Experiment if "dataset" in fields else Own).of(**fields)
    except (json.JSONDecodeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged or of another version of stbp: {error}") from error


def read_config(folder: Path) -> Experiment:
    """The experiment of the run in a folder. Errors as for `read_settings`, and one for a run of another kind."""
    settings = read_settings(folder)
    if isinstance(settings, Own):
        raise ValueError(f"{folder} is the run of a network of your own, {settings.name}, not of an experiment")
    return settings


def read(folder: Path) -> tuple[Settings, Checkpoint, dict[str, Any]]:
    """Settings, last checkpoint and summary (empty while the run is not finished) of a folder."""
    settings = read_settings(folder)
    return settings, _load(folder, settings), read_summary(folder)


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of the run in a folder; empty while it is not finished."""
    path = folder / "summary.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write_progress(folder: Path, saved: Checkpoint) -> None:
    """Checkpoint first, then the metrics made from its history: they never know of an epoch that it does not."""
    checkpoint.save(folder / checkpoint.FILE, saved)
    _write_metrics(folder, saved)


def _write_metrics(folder: Path, saved: Checkpoint) -> None:
    lines = "".join(json.dumps(metrics) + "\n" for metrics in saved.header["progress"]["history"])
    write_atomically(folder / "metrics.jsonl", lines.encode())


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write `summary.json`."""
    write_json(folder / "summary.json", summary)


def header(settings: Settings, progress: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The JSON of a checkpoint, without shape and classes."""
    return {"experiment": settings.flat(), "progress": progress, **_machine(device)}


def _machine(device: torch.device) -> dict[str, Any]:
    """Facts on which rounding depends."""
    return {"threads": torch.get_num_threads(), "torch": torch.__version__, "device": device.type}


def changes(saved: Checkpoint, device: torch.device) -> list[str]:
    """Differences from the machine that a run was begun on, a line each."""
    return [
        f"the run was begun with {name} {saved.header[name]}, now {now}: sums may round differently"
        for name, now in _machine(device).items()
        if saved.header.get(name, now) != now
    ]


def summary(
    settings: Settings,
    history: Sequence[dict[str, Any]],
    seconds: float,
    findings: Sequence[Finding],
    commit: str | None,
    device: torch.device,
    kernels: list[dict[str, Any]],
    training_samples: int,
    test_samples: int,
) -> dict[str, Any]:
    """The content of `summary.json`."""
    last = history[-1]
    return {
        "experiment": settings.name,
        "test_accuracy": last["test_accuracy"],
        "validation_accuracy": last["validation_accuracy"],
        "train_accuracy": last["train_accuracy"],
        "epochs": last["epoch"],
        "seed": settings.training.seed,
        "training_samples": training_samples,
        "test_samples": test_samples,
        "seconds": round(seconds, 1),
        "peak_memory_mib": peak_memory_mib(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "commit": commit,
        "device": device.type,
        "kernels": kernels,
        "firing_rate": last["firing_rate"],
        "health": [str(finding) for finding in findings],
        "cannot_learn": any(finding.fatal for finding in findings),
    }


def versions() -> dict[str, str]:
    """Versions on which a number may depend."""
    return {"stbp": stbp.__version__, "torch": torch.__version__, "python": platform.python_version()}


def peak_memory_mib() -> float | None:
    """Highest resident size of this process so far; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)


def commit() -> str | None:
    """The commit of the checkout that this package runs from; None outside one.

    With `+` behind it if the package's own files differ from the commit's: others do not decide what a run gives.
    """
    package = Path(__file__).resolve().parents[1]
    if not (package.parent / ".git").exists():
        return None
    git = ["git", "-C", str(package)]
    try:
        described = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        differs = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "."], timeout=10).returncode
    except (OSError, subprocess.SubprocessError):
        return None
    return described + ("+" if differs else "")
