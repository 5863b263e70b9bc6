"""The tables of `stbp bench` on screen."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stbp.bench.ratio import ratios, value
from stbp.bench.subject import DENSE, OURS
from stbp.plot.style import counted

NAMES = {"step": "training step", "inference": "inference", "epoch": "first epoch", "memory_mib": "memory"}


def show(result: dict[str, Any], console: Console) -> None:
    """A table for each network, then what the numbers are and what they are not."""
    for network, found in result["networks"].items():
        console.print(_table(network, found))
        for line in _sentences(found):
            console.print(line)
        console.print()
    versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in result["versions"].items())
    console.print(
        f"{result['processor']}, {counted(result['threads'], 'thread')}, {result['date']}, {escape(versions)}"
    )
    runtimes = result["openmp_runtimes"]
    if len(runtimes) != 1:
        console.print(f"OpenMP runtimes in this process: {', '.join(runtimes) or 'none'}; there should be one")
    for name, text in result["method"].items():
        console.print(f"[bold]{name}[/bold]: {escape(text)}")


def show_sweep(result: dict[str, Any], console: Console) -> None:
    """A step's median at every point, ms, and ours against the dense path."""
    names = list(dict.fromkeys(name for point in result["points"] for name in point["step"]))
    table = Table("", "", *names, "of the dense path", box=None, padding=(0, 2, 0, 0))
    for point in result["points"]:
        cells = [_number(value(point["step"], name), 1000.0) for name in names]
        last = point.get("did_not_fit", "")
        if OURS in point["step"]:
            last = f"{point['step'][OURS]['median'] / point['step'][DENSE]['median']:.2f}"
        table.add_row(point["axis"], f"{point['value']:g}", *cells, last)
    console.print("[bold]a step's median, ms, around 784-800-10, T = 30, batch 100, MNIST[/bold]")
    console.print(table)


def show_gpu(result: dict[str, Any], console: Console) -> None:
    """Steps end to end on a GPU, then the neurons alone as a share of the speed of the memory."""
    for network, found in result["networks"].items():
        table = Table(
            "", "step, ms", "quartiles", "memory, MiB", "against the reference", box=None, padding=(0, 2, 0, 0)
        )
        for name, row in found["subjects"].items():
            if row["status"] != "timed":
                table.add_row(name, escape(row["status"]))
                continue
            step, memory = row["step"], row.get("memory_mib")
            quartiles = f"{1000 * step['lower']:.2f} to {1000 * step['upper']:.2f}"
            verdict = _with_choice(row, row.get("equality", {}).get("verdict", ""))
            table.add_row(name, f"{1000 * step['median']:.2f}", quartiles, _number(memory, 1.0), escape(verdict))
        console.print(f"[bold]{network}, T = {found['task']['T']}, batch {found['task']['batch']}[/bold]", table)
        for name, of in found["ratios"].items():
            for key, ratio in of.items():
                if ratio:
                    best = ratio["all"]
                    console.print(
                        f"{name}, {NAMES[key]}: {best['ratio']:.1f} times less than {best['peer']}, the best of all"
                    )
        least = found["least_seconds"]
        console.print(
            f"least time of our step: {1000 * least['memory']:.3f} ms by memory, {1000 * least['products']:.3f} ms by "
            f"products; it moves {found['work']['bytes'] / 2**20:.0f} MiB"
        )
    if result["neurons"]:
        console.print(_neurons(result["neurons"]))
    rates = result["rates"]
    console.print(
        f"{result['device']}, {result['date']}: copies {rates['bytes'] / 1e9:.0f} GB/s, products "
        f"{rates['bfloat16'] / 1e12:.1f} (bfloat16) and {rates['float32'] / 1e12:.1f} (float32) TFLOP/s"
    )
    for name, text in result["method"].items():
        console.print(f"[bold]{name}[/bold]: {escape(text)}")


def _with_choice(row: dict[str, Any], verdict: str) -> str:
    return f"{verdict}; runs by {row['chosen']}" if row.get("chosen") else verdict


def _neurons(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        "neurons alone", "", "forward, ms", "of a copy's speed", "backward, ms", "of it", "memory, MiB",
        "against the reference", box=None, padding=(0, 2, 0, 0),
    )  # fmt: skip
    for row in rows:
        shape = " x ".join(map(str, row["shape"]))
        for name, found in row["subjects"].items():
            if "forward" not in found:
                table.add_row(shape, name, escape(found["status"]))
                continue
            cells = []
            for part in ("forward", "backward"):
                cells += [f"{1000 * found[part]['median']:.3f}", f"{100 * found[f'{part}_of_copy']:.0f} %"]
            table.add_row(
                shape, name, *cells, _number(found["memory_mib"], 1.0), escape(_with_choice(found, found["equality"]))
            )
    return table


def _table(network: str, found: dict[str, Any]) -> Table:
    task = found["task"]
    table = Table(
        title=f"{network}, T = {task['T']}, batch {task['batch']}; {found['input']}, density "
        f"{100 * found['input_density']:.1f} %; weights {found['weights']}",
        title_justify="left",
        title_style="bold",
        box=None,
        padding=(0, 2, 0, 0),
    )
    table.add_column("")
    for column in ("step, ms", "quartiles", "of fastest peer", "of all", "inference, ms", "epoch, s", "memory, MiB"):
        table.add_column(column, justify="right")
    table.add_column("first step, s", justify="right")
    table.add_column("against the reference")
    best = ratios(found["subjects"], "step")
    for name, row in found["subjects"].items():
        style = "bold" if name == OURS else "dim" if row["kind"] in ("bound", "dense") else ""
        table.add_row(*(escape(cell) for cell in _cells(name, row, best)), style=style)
    return table


def _cells(name: str, row: dict[str, Any], best: dict[str, Any] | None) -> list[str]:
    if row["status"] != "timed":
        return [name, row["status"]]
    step = row["step"]
    speed = [f"{best[which]['value'] / step['median']:.2f}x" if best else "" for which in ("uncompiled", "all")]
    epoch = row.get("epoch")
    return [
        name,
        f"{1000 * step['median']:.1f}",
        f"{1000 * step['lower']:.1f} to {1000 * step['upper']:.1f}",
        *speed,
        _number(value(row, "inference"), 1000.0),
        f"{epoch['seconds']:.1f}{'' if epoch['timed'] == epoch['steps'] else '*'}" if epoch else "",
        _number(row.get("memory_mib"), 1.0),
        f"{row['first_step_seconds'] + row.get('equality_seconds', 0.0):.1f}" if row["compiled"] else "",
        row["equality"]["verdict"] if "equality" in row else row["note"],
    ]


def _number(found: float | None, factor: float) -> str:
    return "" if found is None else f"{factor * found:.1f}"


def _sentences(found: dict[str, Any]) -> list[str]:
    lines = []
    for key, name in NAMES.items():
        ratio = found["ratios"].get(key)
        if ratio:
            plain, every = ratio["uncompiled"], ratio["all"]
            lines.append(
                f"{name}: {plain['ratio']:.1f} times less than {plain['peer']}, the best uncompiled peer; "
                f"{every['ratio']:.1f} times less than {every['peer']}, the best of all"
            )
    scaled = {row["epoch"]["timed"] for row in found["subjects"].values() if "epoch" in row}
    steps = next((row["epoch"]["steps"] for row in found["subjects"].values() if "epoch" in row), 0)
    part = sorted(scaled - {steps})
    if part:
        lines.append(f"* scaled from {' or '.join(map(str, part))} steps to the {steps} of an epoch")
    kernels = [
        f"{path.get('layer', '')} {path['operator']} {path['step']}: {path['kernel']}".lstrip()
        + ("" if path["density"] is None else f" at {100 * path['density']:.1f} %")
        for path in found["paths"]
    ]
    if kernels:
        lines.append(f"the paths of our step: {escape('; '.join(kernels))}")
    return lines
