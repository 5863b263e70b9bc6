"""The command line. Torch is imported by the commands that need it, so help, `list` and errors come at once."""

import dataclasses
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from tyro.conf import Positional

from stbp import __version__
from stbp.cli import data
from stbp.cli.reproduce import reproduce
from stbp.cli.terminal import DataFolder, Device, Json, RunFolder, arguments, print_json, say
from stbp.cli.train import CROSSVALIDATE, TRAIN
from stbp.experiments import registry
from stbp.names import hint

if TYPE_CHECKING:
    from stbp.train.evaluate import Evaluation

# GNU OpenMP lets idle threads spin for long: beside another busy process that made training of a small network ten
# times slower. This count costs nothing on a quiet machine (LOG.md). It is read when torch is imported.
# A benchmark leaves everyone's threads as the runtime has them.
if sys.argv[1:2] != ["bench"]:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def list_(json: Json = False) -> None:
    """The experiments: data, network, the paper's number and ours."""
    from stbp.experiments import results as report
    from stbp.paper import tables

    results = report.read_results()
    ours = {name: [r for r in results if r["experiment"]["name"] == name] for name in registry.entries()}
    if json:
        wanted = ("command", "seeds", "folds", "samples", "test_accuracy", "pooled_accuracy")
        print_json(
            [
                {
                    "experiment": entry.experiment.flat(),
                    "about": entry.about,
                    **tables.printed(name)._asdict(),
                    "results": [{key: r[key] for key in wanted if key in r} for r in ours[name]],
                }
                for name, entry in registry.entries().items()
            ]
        )
        return
    name, data, paper_s, ours_s = (Column(text, no_wrap=True) for text in ("name", "data", "paper, %", "ours, %"))
    network = Column("network", overflow="fold")  # it alone gives way in a narrow terminal
    table = Table(name, data, network, "T", paper_s, ours_s, box=None, padding=(0, 2, 0, 0))
    for name, entry in registry.entries().items():
        e = entry.experiment
        longest = max(ours[name], key=lambda r: r["experiment"]["epochs"], default=None)
        number = tables.printed(name).printed
        printed = "" if number is None else f"{100 * number:.2f}"
        network = e.network + (", ReLU" if e.neuron == "relu" else "")
        measured = "" if longest is None else report.accuracy(longest)
        if longest is not None and "folds" in longest:
            measured += "\n" + report.over(longest).replace(", ", ",\n")  # a narrow column
        table.add_row(name, e.dataset, network, str(e.T), printed, measured)
    say(table)
    say("\nthe paper's numbers are recalled or quoted by others (--json says which): check before citing them")


def eval_(run: RunFolder, data: DataFolder = None, device: Device = "auto", json: Json = False) -> None:
    """Accuracy of a run on its test set, per class, with the confusion matrix."""
    from stbp.experiments.run import evaluate
    from stbp.train.evaluate import load_run

    evaluation = evaluate(load_run(run), data=data, device=device)
    if json:
        print_json(
            {
                "run": str(run),
                "test_accuracy": evaluation.accuracy,
                "per_class": evaluation.per_class(),
                "confusion": evaluation.confusion.tolist(),
            }
        )
        return
    say(f"test accuracy {100 * evaluation.accuracy:.2f} % of {int(evaluation.confusion.sum())} samples")
    say(_confusion_table(evaluation))


def _confusion_table(evaluation: "Evaluation") -> Table:
    table = Table(
        "true",
        *evaluation.classes,
        "recall, %",
        "precision, %",
        box=None,
        header_style="bold",
        show_edge=False,
    )
    for index, (row, scores) in enumerate(zip(evaluation.confusion.tolist(), evaluation.per_class(), strict=True)):
        cells = [f"[bold]{n}[/bold]" if i == index else str(n or "·") for i, n in enumerate(row)]
        table.add_row(evaluation.classes[index], *cells, _per_cent(scores["recall"]), _per_cent(scores["precision"]))
    return table


def _per_cent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def predict(
    run: RunFolder,
    files: Annotated[
        Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="FILE...", help="Image files; recordings, if it learnt some."),
    ],
    invert: Annotated[bool, tyro.conf.arg(help="Dark strokes on a light ground: turn light and dark round.")] = False,
    json: Json = False,
) -> None:
    """Label files with the network of a run: the class that fires most, and the spikes of every class."""
    from stbp.experiments.predict import predict_files
    from stbp.train.evaluate import load_run

    if not files:
        raise ValueError("stbp predict needs at least one file behind the run")
    predictions = predict_files(load_run(run), files, invert)
    if json:
        print_json([dataclasses.asdict(prediction) for prediction in predictions])
        return
    for p in predictions:
        counts = "  ".join(f"{name}:{n}" for name, n in p.counts.items())
        say(f"{escape(p.file)}  [bold]{escape(p.label)}[/bold]   spikes {escape(counts)}")
        if p.remark:
            say(f"  {escape(p.remark)}")


Kind = Literal[
    "learning-curve", "raster", "potential", "rates", "surrogates", "confusion", "weights", "all", "events", "movie"
]


def plot(
    kind: Positional[Kind],
    paths: Annotated[
        Positional[tuple[Path, ...]],
        tyro.conf.arg(
            metavar="PATH...",
            help="Folders of runs: none for surrogates, several for learning-curve; for events a recording "
            "(or ZIP/MEMBER); for movie a run and a recording.",
        ),
    ] = (),
    out: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="FILE",
            help="Picture (png, svg, pdf; gif of a movie); RUN/KIND.png by default, RECORDING-events.png. Not for all.",
        ),
    ] = None,
    sample: Annotated[int, tyro.conf.arg(help="Index of the test sample for raster and potential.")] = 0,
    data: DataFolder = None,
) -> None:
    """Draw a run: learning curve, spikes, potentials, firing rates, the four surrogates, confusion, weights; or all.

    Or draw a recording of an event camera: its events, or as a movie on its way through the network of a run.
    """
    from stbp.cli.plot import draw

    for path in draw(kind, paths, out, sample, data):
        say(escape(str(path)))


def report(
    add: Annotated[
        tuple[Path, ...],
        tyro.conf.arg(metavar="RUN...", help="Finished runs, one a seed, to join with the result there is."),
    ] = (),
    readme: Annotated[
        Path | None, tyro.conf.arg(metavar="FILE", help="Fill tables and chart in it and in docs/.")
    ] = None,
    out: Annotated[Path | None, tyro.conf.arg(metavar="PAGE.html", help="Write everything as one page.")] = None,
    network: Annotated[
        Path | None,
        tyro.conf.arg(metavar="RUN", help="Run of a network such as 784-400-10 that the page's canvas is to use."),
    ] = None,
    add_network: Annotated[
        Path | None,
        tyro.conf.arg(metavar="RUN", help="Run whose network, in 8 bits, becomes that of every page from now on."),
    ] = None,
    data: DataFolder = None,
) -> None:
    """The published results as a Markdown table, or as a page with figures (--out); add runs to them.

    The page shows samples, and measures a network in 8 bits, from the data sets in --data or STBP_DATA.
    """
    from stbp.experiments import results
    from stbp.paper import markdown

    if network is not None and out is None:
        raise ValueError("--network is that of a page; name one with --out PAGE.html")
    if data is not None and out is None and add_network is None:
        raise ValueError("--data has no effect without --out or --add-network; omit it")
    if add:
        say(escape(str(results.collect(add))))
    if readme is not None:
        markdown.update(readme, results.read_results(), markdown.read_benchmark())
    if add_network is not None:
        from stbp.paper.page import render

        say(escape(str(render.add_network(add_network, data))))
    if out is not None:
        from stbp.paper.page import render

        for lack in render.write(out, network=network, data=data):
            say(escape(lack))
        say(escape(str(out)))
    if not add and readme is None and out is None and add_network is None:
        print(markdown.table(results.read_results()))


def bench(
    peers: Annotated[bool, tyro.conf.arg(help="Beside other libraries; needs a checkout, see make bench.")] = False,
    sweep: Annotated[
        bool, tyro.conf.arg(help="Vary steps, batch, neurons and density instead of the main run.")
    ] = False,
    device: Annotated[str, tyro.conf.arg(help="cpu or cuda: what is measured differs.")] = "cpu",
    rounds: Annotated[int, tyro.conf.arg(help="Turns of each subject; median and quartiles are over them.")] = 15,
    threads: int = 2,
    networks: Annotated[
        tuple[str, ...],
        tyro.conf.arg(metavar="NETWORK...", help="Others than the default; on cuda, neurons stands for neurons alone."),
    ] = (),
    T: Annotated[int, tyro.conf.arg(help="Steps of the window; not for --sweep.")] = 30,
    batch: Annotated[int, tyro.conf.arg(help="Samples of a step; not for --sweep.")] = 100,
    data: DataFolder = None,
    out: Annotated[Path, tyro.conf.arg(metavar="DIR", help="Folder for the JSON and the picture.")] = Path("bench"),
    json: Json = False,
) -> None:
    """Time and memory of training steps and first epochs, equality checked: ours, and with --peers other libraries'."""
    from stbp.bench import run, table

    result = run.main(
        peers=peers,
        sweep=sweep,
        device=device,
        rounds=rounds,
        threads=threads,
        networks=networks,
        T=T,
        batch=batch,
        data=data,
        out=out,
    )
    if json:
        print_json(result)
    elif sweep:
        table.show_sweep(result, Console(highlight=False))
    elif "neurons" in result:
        table.show_gpu(result, Console(highlight=False))
    else:
        table.show(result, Console(highlight=False))


Commands = Mapping[str, "Callable[..., None] | Commands"]
# A command, or a group of commands, and the arguments behind its name.
Found = tuple[Callable[..., None] | Commands, Sequence[str]]
COMMANDS: dict[str, Callable[..., None] | Commands] = {
    "list": list_,
    "train": TRAIN,
    "crossvalidate": CROSSVALIDATE,
    "eval": eval_,
    "predict": predict,
    "plot": plot,
    "data": data.COMMANDS,
    "reproduce": reproduce,
    "report": report,
    "bench": bench,
}
ABOUT = {
    "train": "Train an experiment: stbp train NAME [flags]; `stbp train NAME --help` shows them all.",
    "crossvalidate": "Train once for each fold of the data, and test on that fold: stbp crossvalidate NAME [flags].",
    "data": "Event recordings and data sets: stbp data info PATH, stbp data fetch NAME, stbp data verify.",
}


def _app(commands: Commands) -> tyro.extras.SubcommandApp:
    app = tyro.extras.SubcommandApp()
    for name, command in commands.items():
        help_ = ABOUT.get(name)
        if callable(command):
            app.command(name=name, help=help_)(command)
        else:
            app.command(_app(command), name=name, help=help_)
    return app


def _find(args: Sequence[str], commands: Commands = COMMANDS, before: str = "stbp") -> Found:
    """Return the command, or the group of commands, that the arguments name, and the arguments behind its name.

    Raises:
        ValueError: a command or an experiment is missing or does not exist; the message offers the nearest that does.
    """
    word = args[0] if args else ""
    kind = "an experiment" if commands in (TRAIN, CROSSVALIDATE) else "a command"
    if not word:
        raise ValueError(f"{before} needs the name of {kind}; {before} --help shows all")
    if word.startswith("-"):
        return commands, args
    found = commands.get(word)
    if found is None:
        near = hint(word, commands)
        raise ValueError(f"{before} has no {kind.split()[1]} {word!r}{near} ({before} --help shows all)")
    return (found, args[1:]) if callable(found) else _find(args[1:], found, f"{before} {word}")


def _run(args: Sequence[str]) -> None:
    if args == ["--version"]:
        print(__version__)
        return
    args = args or ["--help"]
    command, rest = _find(args)
    words = args[: len(args) - len(rest)]
    prog = " ".join(["stbp", *words])
    if callable(command):  # alone, so that mistakes and help speak of this command
        tyro.cli(command, prog=prog, args=rest, description=command.__doc__)
        return
    _app(command).cli(
        prog=prog,
        args=rest,
        description=ABOUT[words[-1]]
        if words
        else f"stbp {__version__}: train spiking neural networks by backpropagation through space and time. "
        "Start with: stbp train digits-mlp. --debug behind any command shows where an error came from.",
    )


HOW_TO_GO_ON = {
    "train": "; the same command with --resume goes on",
    "crossvalidate": "; the same command with --resume goes on",
    "reproduce": "; the same command goes on",
}


def main() -> int:
    """Run the command line; exit code 0, 2 for a mistake in the call, 1 for a fault of ours, 130 for Ctrl-C."""
    args = arguments()
    debug = len(args) < len(sys.argv) - 1
    try:
        _run(args)
    except KeyboardInterrupt:
        print(
            f"stopped{HOW_TO_GO_ON.get(args[0], '')}",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as with `stbp list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        expected = isinstance(error, ValueError | OSError)
        if debug:
            traceback.print_exc()
            return 2 if expected else 1
        kind = "" if expected else f"{type(error).__name__}: "
        hint = "" if expected else " (a fault of stbp: run again with --debug and report it)"
        print(f"error: {kind}{' '.join(str(error).split())}{hint}", file=sys.stderr)
        return 2 if expected else 1
    return 0
