"""`fit` and `evaluate`: an experiment by name, or a network and data of one's own."""

from pathlib import Path
from typing import Any

import torch

from stbp.config import Experiment
from stbp.data.dataset import DataSet
from stbp.experiments.datasets import ready
from stbp.experiments.registry import experiment as experiment_called
from stbp.nn.build import parse
from stbp.train import evaluate as evaluation
from stbp.train import fit as training
from stbp.train.evaluate import Evaluation, Run, build_network, load_run
from stbp.train.source import Given


def fit(
    experiment: Experiment | str | torch.nn.Module,
    train: Given | None = None,
    test: Given | None = None,
    *,
    data: str | Path | None = None,
    **options: Any,
) -> Run:
    """Train an experiment, or a network of your own; evaluate it after every epoch, and return what came out.

    Args:
        experiment: an `Experiment`, the name of a registered one, or a network.
        train, test: with a network, the samples: pairs `(x, y)` of tensors, data sets or DataLoaders.
        data: with an experiment, the folder that holds data sets; None reads STBP_DATA, then the cache that downloads
            fill.
        options: fields to replace, such as `epochs=5`; and out, resume, device, graph, report, after_epoch and all else
            that `stbp.train.fit.fit` takes.

    Raises:
        ValueError: a field, a data file or the folder `out` is not as it must be; `DivergedError` if numbers overflow.
        KeyboardInterrupt: on Ctrl-C, after a checkpoint was written.
    """
    if isinstance(experiment, torch.nn.Module):
        if train is None or test is None:
            raise ValueError("a network needs its samples: fit(net, (x, y), (x_test, y_test))")
        if data is not None:
            raise ValueError("data has no effect with a network of your own, which gets its samples as train and test")
        return training.fit(experiment, train, test, **options)
    if train is not None or test is not None:
        raise ValueError("train and test go with a network; an experiment names its data set")
    given = experiment_called(experiment) if isinstance(experiment, str) else experiment
    own = {name: options.pop(name) for name in list(options) if name not in _OPTIONS}
    given = given.replace(**own)
    if options.get("resume") and options.get("out") is None:
        raise ValueError("resume has no effect without out, the folder of the run to go on with")
    given, train, test = ready(given, data)
    given = completed(given, train)
    return training.fit(build_network(given, train.rate()), train, test, given, **options)


# What `stbp.train.fit.fit` takes beside the fields of an experiment.
_OPTIONS = ("out", "resume", "device", "graph", "report", "after_epoch")


def completed(experiment: Experiment, train: DataSet) -> Experiment:
    """The experiment with the sizes of input and output in its network, where they are left to the data.

    They are where the network is one number, `800`, or begins with maps or pooling, `15C5-P2-300`.
    """
    network = experiment.model.network
    if not network.isdigit() and not network.partition("-")[0].strip("0123456789").startswith(("C", "P")):
        return experiment
    C, H, W = train.shape
    maps = not all(part.isdigit() for part in network.split("-"))
    size = f"{H}x{W}" + (f"x{C}" if C > 1 else "") if maps or C > 1 else str(H * W)
    whole = f"{size}-{network}-{len(train.classes)}"
    parse(whole)
    return experiment.replace(network=whole)


def evaluate(
    run: Run | str | Path, test: Given | None = None, *, data: str | Path | None = None, device: str = "auto"
) -> Evaluation:
    """Label the test samples of a run again, with the spikes that training measured with.

    Args:
        run: what `fit` returned, or the folder of an experiment's run.
        test: the samples, for the run of a network of your own.
        data: folder that holds data sets, as for `fit`.

    Raises:
        ValueError: `test` is missing for a network of your own, or without effect.
    """
    run = run if isinstance(run, Run) else load_run(run)
    if isinstance(run.settings, Experiment):
        if test is not None:
            raise ValueError("test has no effect on the run of an experiment, which names its data set; omit it")
        test = ready(run.settings, data).test
        for what, there, here in (("shape", run.shape, test.shape), ("classes", run.classes, test.classes)):
            if there != here:
                raise ValueError(
                    f"{run.settings.name} was trained on data of another kind: {what} {there}, here {here}"
                )
    elif test is None or data is not None:
        raise ValueError(f"{run.settings.name} is a network of your own: give its test samples, evaluate(run, (x, y))")
    return evaluation.evaluate(run, test, device)
