"""`stbp data ...`: the commands about data sets. What they need is imported when they run."""

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from stbp.cli.simulate import simulate
from stbp.cli.terminal import Json, print_json, say


def info(
    path: Annotated[
        Positional[Path],
        tyro.conf.arg(metavar="PATH", help="A folder of data, an archive, a recording, or a file of arrays."),
    ],
    json: Json = False,
) -> None:
    """Show what is in a folder or file of images, recordings or arrays, and what would be trained on; train nothing."""
    from stbp.data.info import describe

    found = describe(path)
    if json:
        print_json(found)
        return
    for name, split in found.get("splits", {}).items():
        classes = "  ".join(f"{label or '-'}:{n:,}" for label, n in split["classes"].items())
        samples, number = next(iter(split.items()))
        say(f"[bold]{escape(name)}[/bold]  {number:,} {samples}, {len(split['classes'])} classes")
        say(f"  {escape(classes)}")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in [*_counted_rows(found), *_event_rows(found), *_training_rows(found)]:
        table.add_row(name, escape(value))
    say(table)
    if "command" in found:  # not in the table, which breaks lines
        flag = "  and the flag that it needs, see above" if found.get("needs") else ""
        say(f"train with: {escape(found['command'])}{flag}")


def _counted_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("format", found["format"])] if "format" in found else []
    if found.get("formats"):
        rows.append(("formats", _counts(found["formats"])))
    sizes = list(found.get("sizes", {}).items())
    rows += [("size", f"{size} pixels, {n:,} images") for size, n in sizes[:5]]
    if len(sizes) > 5:
        rows.append(("size", f"{len(sizes) - 5:,} others"))
    if "measured" in found:
        number = sum(next(iter(split.values())) for split in found["splits"].values())
        rows.append(("read", f"{found['measured']:,} of {number:,} samples"))
    return rows


def _event_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    if "events" not in found:
        return []
    rows = [("events", f"{found['events']:,}")]
    if "measured" in found:
        spread = found["events_per_recording"]
        each = f" ({spread['smallest']:,} to {spread['largest']:,} each, median {spread['median']:,.0f})"
        rows = [("events", f"{found['events']:,}{each}")]
    if found["extent"]:
        median = ", median" if "measured" in found else f", from {found['first_us']:,} us"
        rows.append(("duration", f"{found['duration_us'] / 1000:,.2f} ms{median}"))
        rows.append(("reaches", f"{found['extent'][0]} x {found['extent'][1]} pixels"))
        rows.append(("ON", f"{100 * found['on_share']:.2f} %"))
    if found.get("sensor"):
        known = f", {found['sensor_known']}" if "sensor_known" in found else ""
        rows.append(("sensor", f"{found['sensor'][0]} x {found['sensor'][1]} pixels{known}"))
    if found["events_per_second"]:
        rows.append(("rate", f"{found['events_per_second']:,.0f} events/s"))
    if found["repairs"]:
        rows.append(("mended", _counts(found["repairs"])))
    if found.get("empty"):
        rows.append(("empty", f"{found['empty']:,} recordings"))
    return rows


def _training_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows on what would be left out, and on how to train."""
    rows = [("other files", f"{found['other_files']:,}")] if found.get("other_files") else []
    for why, names in found.get("skipped", {}).items():
        rows.append(("skipped", f"{len(names):,} {why}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"))
    rows += [("damaged", message) for message in found.get("damaged", [])[:5]]
    if len(found.get("damaged", [])) > 5:
        rows.append(("damaged", f"{len(found['damaged']) - 5:,} more"))
    if found.get("unused"):
        rows.append(("not used", f"{', '.join(found['unused'])}: another one is the test set"))
    names = {"test_set": "test set", "needs": "needs", "not_trained_on": "not trained on"}
    return rows + [(name, found[key]) for key, name in names.items() if key in found]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {name}" for name, n in counts.items())


def fetch(
    name: Annotated[
        Positional[Literal["mnist", "fashion-mnist", "n-mnist"]], tyro.conf.arg(help="n-mnist has 70,000 recordings.")
    ],
    data: Annotated[
        Path | None,
        tyro.conf.arg(metavar="DIR", help="Folder of data sets, gets DIR/NAME; otherwise STBP_DATA, then a cache."),
    ] = None,
) -> None:
    """Download a data set, going on with an earlier download that was cut off, and check it."""
    from stbp.data.downloads import fetch_set

    folder = fetch_set(name, data)
    say(f"{name} is whole and in {escape(str(folder))}")


def verify(
    name: Annotated[
        Positional[str], tyro.conf.arg(metavar="NAME", help="n-mnist, or a folder with Train.zip and Test.zip.")
    ] = "n-mnist",
    data: Annotated[
        Path | None, tyro.conf.arg(metavar="DIR", help="Folder of data sets; otherwise STBP_DATA, then a cache.")
    ] = None,
) -> None:
    """Compare what is kept of a set of recordings, byte by byte, with what its files hold now."""
    from stbp.data.events.sets import verify_events

    for path, store in verify_events(name, data).items():
        say(f"{escape(str(path))} is what is kept in {escape(str(store))}")


COMMANDS = {"info": info, "fetch": fetch, "verify": verify, "simulate": simulate}
