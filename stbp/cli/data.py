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
        Positional[Path], tyro.conf.arg(metavar="PATH", help="A recording, an archive, an idx file or a folder.")
    ],
    json: Json = False,
) -> None:
    """What is in a recording, an archive or a folder of recordings or images: counts, times, size, rates, classes."""
    from stbp.data import image_info
    from stbp.data.events import info as event_info

    found = image_info.describe(path) or event_info.describe(path)
    if json:
        print_json(found)
        return
    for name, split in found.get("splits", {}).items():
        classes = "  ".join(f"{label or '-'}:{n:,}" for label, n in split["classes"].items())
        samples = "images" if "images" in split else "recordings"
        numbers = f"{split[samples]:,} {samples}, {len(split['classes'])} classes"
        say(f"[bold]{escape(name)}[/bold]  {numbers}")
        say(f"  {escape(classes)}")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in _image_rows(found) if "sizes" in found else _rows(found):
        table.add_row(name, escape(value))
    say(table)


def _image_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    sizes = sorted(found["sizes"].items(), key=lambda size: -size[1])
    rows = [("format", found["format"])]
    rows += [("size", f"{size} pixels, {n:,} images") for size, n in sizes[:5]]
    if len(sizes) > 5:
        rows.append(("size", f"{len(sizes) - 5:,} others"))
    if found.get("other_files"):
        rows.append(("other files", f"{found['other_files']:,}"))
    return rows


def _rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("format", found["format"])] if "format" in found else []
    if "measured" in found:
        number = sum(split["recordings"] for split in found["splits"].values())
        rows.append(("measured", f"{found['measured']:,} of {number:,} recordings: {_counts(found['formats'])}"))
        spread = found["events_per_recording"]
        each = f" ({spread['smallest']:,} to {spread['largest']:,} each, median {spread['median']:,.0f})"
        rows.append(("events", f"{found['events']:,}{each}"))
    else:
        rows.append(("events", f"{found['events']:,}"))
    if found["extent"]:
        median = ", median" if "measured" in found else f", from {found['first_us']:,} us"
        rows.append(("duration", f"{found['duration_us'] / 1000:,.2f} ms{median}"))
        rows.append(("reaches", f"{found['extent'][0]} x {found['extent'][1]} pixels"))
        rows.append(("ON", f"{100 * found['on_share']:.2f} %"))
    if found.get("sensor"):
        rows.append(("sensor", f"{found['sensor'][0]} x {found['sensor'][1]} pixels"))
    if found["events_per_second"]:
        rows.append(("rate", f"{found['events_per_second']:,.0f} events/s"))
    if found["repairs"]:
        rows.append(("mended", _counts(found["repairs"])))
    if found.get("empty"):
        rows.append(("empty", f"{found['empty']:,} recordings"))
    if found.get("other_files"):
        rows.append(("other files", f"{found['other_files']:,}"))
    rows += [("damaged", message) for message in found.get("damaged", [])[:5]]
    if len(found.get("damaged", [])) > 5:
        rows.append(("damaged", f"{len(found['damaged']) - 5:,} more"))
    return rows


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
