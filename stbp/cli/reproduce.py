"""`stbp reproduce`: the command. Torch is imported when something is to be run."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from tyro.conf import Positional

from stbp.cli.terminal import DataFolder, Device, Json, print_json, say
from stbp.config import Experiment
from stbp.experiments import results as report
from stbp.experiments.jobs import Job, places
from stbp.names import hint
from stbp.paper import study
from stbp.paper.comparison import StandIn, compare, grid, pairs, points
from stbp.paper.reproduce import Plan, wanted
from stbp.paper.tables import Figure, Table, groups

QUICK_SEEDS = 1
NARROWEST = 132  # columns of a table: a terminal with fewer breaks its lines, but nothing is left out


def reproduce(
    names: Annotated[
        Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="NAME...", help=f"What: {', '.join((*groups(), study.NAME))}, or all."),
    ] = (),
    quick: Annotated[
        bool, tyro.conf.arg(help="Walk through with tiny runs on made-up data, in a moment; the numbers mean nothing.")
    ] = False,
    seeds: Annotated[
        int | None,
        tyro.conf.arg(
            help="Seeds of every experiment: by default 5 of ours, 1 with the paper's constants. 0 runs nothing and "
            "shows what is there."
        ),
    ] = None,
    data: DataFolder = None,
    out: Annotated[Path, tyro.conf.arg(metavar="DIR", help="Folder for the folders of the runs.")] = Path("runs"),
    device: Annotated[Device, tyro.conf.arg(help="Where to compute.")] = "auto",
    jobs: Annotated[
        int | None, tyro.conf.arg(help="Runs at once, of one thread each; by default one for each core, or GPU.")
    ] = None,
    json: Json = False,
) -> None:
    """The paper's tables and figures: run what is missing, go on with what was stopped, show it beside the paper."""
    chosen, studied = _chosen(names)
    if seeds is not None and seeds < 0:
        raise ValueError(f"seeds must be 0 or more; got {seeds}")
    if not quick:
        plan = Plan(wanted(chosen, seeds), out, report.FOLDER, () if seeds == 0 else studied)
        missing = plan.jobs()
        _run_and_show(plan, missing, chosen, studied, data, device, places(device, jobs) if missing else [], json)
        return
    if data is not None or out != Path("runs") or seeds is not None or jobs is not None:
        raise ValueError("--data, --out, --seeds and --jobs have no effect with --quick; omit them")
    _walk_through(chosen, studied, device, json)


def _chosen(names: Sequence[str]) -> tuple[list[Table | Figure], tuple[Experiment, ...]]:
    """The tables and figures, and the experiments whose networks are to be measured."""
    known = (*groups(), study.NAME)
    if not names:
        raise ValueError(f"stbp reproduce needs a name: {', '.join(known)}, or all")
    for name in names:
        if name not in (*known, "all"):
            near = hint(name, (*known, "all"))
            raise ValueError(f"nothing to reproduce is called {name!r}{near} (there are {', '.join(known)}, and all)")
    wanted = known if "all" in names else tuple(dict.fromkeys(names))
    return [groups()[name] for name in wanted if name in groups()], (study.studied() if study.NAME in wanted else ())


def _walk_through(chosen: Sequence[Table | Figure], studied: Sequence[Experiment], device: Device, json: bool) -> None:
    from stbp.paper.quick import made_up, tiny

    with made_up() as folder:
        small = tuple(map(tiny, studied))
        plan = Plan(wanted(chosen, QUICK_SEEDS, tiny), folder / "runs", None, small)
        _run_and_show(plan, plan.jobs(), chosen, small, folder / "data", device, None, json, tiny)


def _run_and_show(
    plan: Plan,
    missing: Sequence[Job],
    chosen: Sequence[Table | Figure],
    studied: Sequence[Experiment],
    data: Path | None,
    device: Device,
    at: Sequence[str | None] | None,
    json: bool,
    stand_in: StandIn = lambda experiment: experiment,
) -> None:
    if missing:
        plan.run(missing, at, data, device, quiet=plan.published is None)
    plan.measure(data, device)
    results = plan.results()
    studies = {e.name: plan.study(e) for e in studied}
    if json:
        content = [_content(name, group, results, stand_in) for name, group in groups().items() if group in chosen]
        print_json({"quick": plan.published is None, "groups": content, study.NAME: studies})
    else:
        for group in chosen:
            _show(group, results, stand_in)
        for name, found in studies.items():
            _show_study(name, found)
        say(
            "\nOurs: the last epoch, mean and standard deviation. Behind a difference: the 95 % t interval of our mean "
            "alone, for the paper's number is one run. Last column: mean, least and greatest of the last ten epochs of "
            "one run, the paper's own statistic."
        )
        if plan.published is None:
            say("[bold]--quick: tiny runs on made-up data. These numbers mean nothing.[/bold]")
    if plan.failures:
        count = sum(map(len, plan.failures.values()))
        name, errors = next(iter(plan.failures.items()))
        raise ValueError(f"{count} of {len(missing)} runs failed, the others are there; {name}: {errors[0]}")


def _show_study(name: str, found: dict[str, Any] | None) -> None:
    say(f"\n[bold]Inference: one trained {escape(name)} (not in the paper)[/bold]")
    if found is None:
        say(f"not yet run: {study.COMMAND}")
        return
    for table in study.grids(found):
        say(table)
    say(study.NOT_COUNTED)


def _content(name: str, group: Table | Figure, results: Sequence[dict[str, Any]], stand_in: StandIn) -> dict[str, Any]:
    rows = []
    for row in compare(group, results, stand_in):
        printed = {k: v for k, v in dataclasses.asdict(row.printed).items() if k not in ("paper", "tuned")}
        rows.append({**printed, "measured": [_plain(measured) for measured in row.measured]})
    found = [_plain(pair) for pair in pairs(group, results, stand_in)]
    return {"name": name, "title": f"{group.number}: {group.title}", "rows": rows, "pairs": found}


def _plain(item: Any) -> dict[str, Any]:
    """A dataclass as JSON has it, its named tuples as objects."""
    values = {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
    return {name: value._asdict() if hasattr(value, "_asdict") else value for name, value in values.items()}


def _show(group: Table | Figure, results: Sequence[dict[str, Any]], stand_in: StandIn) -> None:
    compared = compare(group, results, stand_in)
    say(f"\n[bold]{escape(group.number)}: {escape(group.title)}[/bold]")
    if isinstance(group, Figure):
        say(f"the paper finds ({group.certainty}): {escape(group.finding)}")
    say(grid(compared), width=max(Console().width, NARROWEST))
    for pair in pairs(group, results, stand_in):
        n = pair.difference.n
        say(f"STBP minus SDBP, {pair.stbp}: {escape(points(pair.difference))} points, {n} seed{'s'[: n > 1]} in pairs")
    for part, measured in ((c.printed, m) for c in compared for m in c.measured if m.stopped):
        say(f"{part.label}: {measured.name} was stopped after its first epoch, it cannot learn:")
        for finding in measured.health:
            say(f"  health: {escape(finding)}")
    if group.remark:
        say(escape(group.remark))
