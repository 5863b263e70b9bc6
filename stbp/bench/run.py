"""`stbp bench`: time and memory of training, ours and, with the checkout's `benchmarks/`, the peers'."""

import dataclasses
import datetime
import importlib.metadata
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import stbp
from stbp.bench import gpu, memory, picture, timing
from stbp.bench import sweep as axes_sweep
from stbp.bench.equality import Reference, paths_of
from stbp.bench.neurons import ALONE
from stbp.bench.ratio import Rows, ratios
from stbp.bench.subject import OURS, Entry, Subject, Task, Weights, entries, ours_in_training
from stbp.bench.work import WARM_STEPS, Source, folder, mnist, source_of, takes_mnist, trained
from stbp.files import write_json
from stbp.nn.build import parse
from stbp.ops import native
from stbp.train import runs
from stbp.train.evaluate import device_called

NETWORKS = ("784-800-10", "784-400-400-10", "28x28-15C5-P2-40C5-P2-300-10", "2312-800-10")
# No bar is read from it, and torch.compile takes minutes for each: what it makes is left out there.
NOT_COMPILED = ("784-400-400-10",)

METHOD = {
    "task": "decay 0.2, threshold 0.3 (our experiments'), hard reset to 0, rectangle of width 1, squared error of "
    "firing rates, Adam",
    "step": "from the same dense float32 spikes [T, B, ...], our packing inside: forward, loss, backward, optimiser, "
    "zeroing of gradients; learning rate 0, so that the weights stay those named; no sample's backward pass skipped. "
    f"A turn lasts at least {1000 * timing.TURN:g} ms; steps shorter than {1000 * timing.SHORT:g} ms have one before "
    "it that is not timed; all subjects take a turn in every round, starting with another one each time",
    "inference": "forward without gradients, from the same spikes; not of what torch.compile made, which would compile "
    "once more",
    "epoch": "first epoch of MNIST from uint8 images in memory and fresh weights, each with its own encoder; batches "
    "are slices of that memory, optimiser included; not imports, compilation or the test pass. Ours is a whole epoch, "
    f"in {timing.PARTS} parts between which the others run; theirs are so many steps as named, their mean scaled",
    "memory": f"highest resident size over {memory.STEPS} steps in a process of its own, minus that before, when "
    "imports, a tiny network's step and the input batch are done with; not of what torch.compile made: the "
    "compiler's own memory would be in it, as XLA's is in spyx's",
    "first step": "compilation included; torch keeps what it compiled in a cache on disk, so a second run shows less",
    "equality": "with weights on a grid of 2^-8 and decay 0.5, where sums are exact: all output spikes equal, relative "
    "error of every gradient at most 1e-4; of what torch.compile made, with the timed weights instead",
}


def main(
    *,
    peers: bool = False,
    sweep: bool = False,
    device: str = "cpu",
    rounds: int = 15,
    threads: int = 2,
    networks: Sequence[str] = (),
    density: float = 0.02,
    data: str | Path | None = None,
    out: Path = Path("bench"),
    T: int = 30,
    batch: int = 100,
    tell: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
) -> dict[str, Any]:
    """Run the benchmark (or the sweep), write its JSON and its picture into `out`, and return what the JSON holds.

    Args:
        device: cpu, cuda (`stbp.bench.gpu`; of the other arguments T, batch and rounds count), or auto.
        networks: others than the device's own.
        density: of the synthetic input of networks that do not take MNIST's 784 pixels.
        data: folder that holds data sets, as in training.

    Raises:
        ValueError: an argument out of its range, no checkout for the peers, or a kernel of ours that is not equal.
    """
    if sweep and device != "cpu":
        raise ValueError("sweep runs on the cpu alone; omit device")
    where = device_called(device)
    _check({"rounds": rounds, "T": T, "batch": batch}, [n for n in networks if where.type != "cuda" or n != ALONE])
    if sweep and (T, batch) != (30, 100):
        raise ValueError(f"the sweep has its own steps and batches; omit T and batch; got {T}, {batch}")
    timing.set_threads(threads)
    home, subjects = folder(out), entries(peers, where.type)
    if where.type == "cuda":
        known = describe(subjects, rounds)
        known.pop("begun")
        keep = lambda found: write_json(home / "cuda.json", known | found)  # noqa: E731
        return known | gpu.run(subjects, rounds, data, where, networks or gpu.NETWORKS, T, batch, tell, keep)
    networks = networks or NETWORKS
    if sweep:
        return axes_sweep.run(subjects, rounds, data, home, describe(subjects, rounds), tell)
    images = mnist(data) if any(takes_mnist(Task(network)) for network in networks) else None
    result = {**describe(subjects, rounds), "method": METHOD, "networks": {}}
    begun = result.pop("begun")
    for network in networks:
        task = Task(network, T, batch)
        source = source_of(task, images, density)
        result["networks"][network] = measure(task, source, subjects, rounds, takes_mnist(task), tell)
        result["openmp_runtimes"] = [Path(file).name for file in native.openmp_runtimes()]
        result["seconds"] = round(time.perf_counter() - begun, 1)
        write_json(home / "cpu.json", result)  # after every network: the next may take minutes
    picture.draw(result, home / "cpu.png")
    return result


def _check(positive: dict[str, int], networks: Sequence[str]) -> None:
    for name, number in positive.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1; got {number}")
    for network in networks:
        parse(network)


def describe(subjects: Sequence[Entry], rounds: int) -> dict[str, Any]:
    """Facts that a reader needs to judge the numbers: versions, processor, threads, date, commit."""
    packages = {e.package: e.version for e in subjects if e.package}
    if packages.get("spyx"):
        packages["jax"] = importlib.metadata.version("jax")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": runs.commit(),
        "versions": {
            "stbp": stbp.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            **packages,
        },
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "jax_threads": "its pool has as many (NPROC); every call is waited for, so it rests in the others' turns",
        "rounds": rounds,
        "begun": time.perf_counter(),
    }


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def measure(
    task: Task,
    source: Source,
    subjects: Sequence[Entry],
    rounds: int,
    with_epoch: bool,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Everything about one network: a row for every subject, and the ratios."""
    say = lambda text: tell(f"{task.network}: {text}")  # noqa: E731
    say(f"training {WARM_STEPS} steps")
    weights = trained(task, source)
    x, y = source.spikes(WARM_STEPS, task)
    reference = Reference(task, weights, x, y)
    rows: dict[str, dict[str, Any]] = {}
    ready: dict[Entry, tuple[Subject, Any]] = {}
    torch.compiler.reset()
    for entry in subjects:
        row = rows[entry.name] = {"kind": entry.kind, "compiled": entry.compiled, "note": entry.note}
        if not entry.installed:
            row["status"] = "not installed"
            continue
        if entry.by_torch and task.network in NOT_COMPILED:
            row["status"] = "left out: compiling takes minutes"
            continue
        say(f"{entry.name}: equality, warm-up")
        try:
            subject = entry.build(task)
        except ImportError as error:
            row["status"] = f"not installed: {error}"
            continue
        if entry.kind == "ours" and with_epoch:
            reference.compare(dataclasses.replace(entry, build=ours_in_training), ours_in_training(task))
        if entry.kind != "bound":
            begun = time.perf_counter()
            equality = reference.compare(entry, subject)
            row["equality"] = {"verdict": equality.verdict(entry.note), **dataclasses.asdict(equality)}
            row["equality_seconds"] = time.perf_counter() - begun
        subject.start(weights, 0.0)
        placed = subject.place(x, y)
        row["first_step_seconds"], row["warm_step_seconds"] = timing.warm_up(lambda s=subject, p=placed: s.step(*p))
        row["status"] = "timed"
        ready[entry] = subject, placed
    _time_steps(rows, ready, rounds, say)
    if with_epoch:
        _time_epochs(rows, ready, task, source, say)
    _weigh(rows, ready, task, weights, x, y, say)
    found = {
        "task": dataclasses.asdict(task),
        "input": source.words,
        "input_density": x.mean().item(),
        "weights": f"after {WARM_STEPS} steps of our own training",
        "subjects": rows,
        "ratios": {key: ratios(rows, key) for key in ("step", "inference", "epoch", "memory_mib")},
    }
    subject, placed = next(pair for entry, pair in ready.items() if entry.name == OURS)
    found["paths"] = paths_of(lambda: subject.step(*placed))
    return found


Ready = dict[Entry, tuple[Subject, Any]]


def _time_steps(rows: Rows, ready: Ready, rounds: int, say: Callable[[str], None]) -> None:
    expected = {entry.name: rows[entry.name]["warm_step_seconds"] for entry in ready}
    limited = [entry.name for entry in ready if entry.compiled]
    steps = {entry.name: lambda s=subject, p=placed: s.step(*p) for entry, (subject, placed) in ready.items()}
    for name, found in timing.interleave(steps, expected, rounds, limited, lambda t: say(f"steps, {t}")).items():
        rows[name]["step"] = dataclasses.asdict(found)
    forward = {
        entry.name: lambda s=subject, p=placed: s.infer(p[0])
        for entry, (subject, placed) in ready.items()
        if not entry.by_torch
    }
    warm = {name: timing.warm_up(action, 1)[1] for name, action in forward.items()}
    for name, found in timing.interleave(forward, warm, rounds, limited, lambda t: say(f"inference, {t}")).items():
        rows[name]["inference"] = dataclasses.asdict(found)


def _time_epochs(rows: Rows, ready: Ready, task: Task, source: Source, say: Callable[[str], None]) -> None:
    fresh = list(task.build(source.images.float().mean().item() / 255).parameters())
    subjects = {
        entry: (ours_in_training(task) if entry.kind == "ours" else subject, rows[entry.name]["step"]["median"])
        for entry, (subject, _) in ready.items()
    }
    for name, epoch in timing.epochs(subjects, source, task.shape, fresh, task.batch, say).items():
        rows[name]["epoch"] = dataclasses.asdict(epoch)


def _weigh(rows: Rows, ready: Ready, task: Task, weights: Weights, x: Any, y: Any, say: Callable[[str], None]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        memory.store(Path(temporary), task, weights, x, y)
        for entry in ready:
            if not entry.by_torch:
                say(f"{entry.name}: memory")
                rows[entry.name]["memory_mib"] = memory.measure(Path(temporary), entry.name)
