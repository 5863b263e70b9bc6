import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import stbp
from stbp import nn
from stbp.cli.plot import draw
from stbp.experiments import registry, results
from stbp.experiments.predict import predict_files
from stbp.nn import twin
from stbp.train.progress import Silent

TWIN = registry.experiments()["digits-mlp"].replace(
    name="digits-twin", network="64-16-10", neuron="relu", T=1, encoding="static", init="torch", epochs=3,
    learning_rate=1e-2,
)  # fmt: skip


def plain(net: nn.Network, *modules: torch.nn.Module) -> torch.nn.Sequential:
    """A network of torch.nn alone with the weights of ours, in their order."""
    theirs = torch.nn.Sequential(*modules)
    with torch.no_grad():
        for theirs_one, ours_one in zip(theirs.parameters(), net.parameters(), strict=True):
            theirs_one.copy_(ours_one)
    return theirs


@pytest.mark.parametrize(
    ("notation", "modules"),
    [
        ("64-16-10", [torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10)]),
        (
            "8x8-4C3-P2-12-3",
            [
                torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.AvgPool2d(2), torch.nn.Flatten(),
                torch.nn.Linear(36, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3),
            ],
        ),
    ],
)  # fmt: skip
def test_it_is_the_ordinary_network_of_torch_nn(notation, modules):
    net = twin.build(notation, seed=1)
    theirs = plain(net, *modules)
    image = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    ours, expected = net(image[None]), theirs(image)
    torch.testing.assert_close(ours, expected[None])
    assert (ours < 0).any()  # the last layer is not rectified
    weight = torch.arange(expected.shape[1], dtype=torch.float32)
    gradients = torch.autograd.grad((ours[0] * weight).sum(), list(net.parameters()))
    for a, b in zip(gradients, torch.autograd.grad((expected * weight).sum(), list(theirs.parameters())), strict=True):
        torch.testing.assert_close(a, b)


def test_it_trains_resumes_and_evaluates_in_the_same_loop(tmp_path: Path):
    run = stbp.fit(TWIN, out=tmp_path, report=Silent())
    assert run.test_accuracy > 0.7  # 16 hidden units, 3 epochs; chance is 0.1
    assert run.history[-1]["firing_rate"] == []
    assert stbp.evaluate(tmp_path).accuracy == run.test_accuracy
    assert [path.stem for path in draw("all", [tmp_path], None, 0, None)] == [
        "learning-curve", "confusion", "surrogates", "weights"
    ]  # fmt: skip


def test_what_shows_or_counts_spikes_says_that_there_are_none(tmp_path: Path):
    run = stbp.fit(TWIN, epochs=1, out=tmp_path, report=Silent())
    for kind in ("raster", "potential", "rates"):
        with pytest.raises(ValueError, match="digits-twin is a network without spikes"):
            draw(kind, [tmp_path], None, 0, None)
    with pytest.raises(ValueError, match="digits-twin is a network without spikes"):
        predict_files(run, [tmp_path / "x.png"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"T": 5}, "neuron relu needs T 1; got T 5"),
        ({"encoding": "bernoulli"}, "neuron relu needs encoding static"),
        ({"init": "balanced"}, "neuron relu needs init torch"),
        ({"bias": 0.5}, "neuron relu needs bias 0.0"),
        ({"threshold": 0.5}, "threshold has no effect with neuron relu, only with lif; omit it; got 0.5"),
        ({"gate": "spatial"}, "gate has no effect with neuron relu"),
    ],
)
def test_a_field_of_spiking_neurons_is_an_error(fields, message):
    with pytest.raises(ValueError, match=message):
        TWIN.replace(**fields)


def test_every_pedestrian_experiment_has_a_twin_of_the_same_shape_data_and_training():
    found = registry.experiments()
    for name in ("pedestrian-mlp", "pedestrian-cnn"):
        spiking, other = (found[n].flat() for n in (name, f"{name}-twin"))
        same = ("dataset", "image_size", "network", "optimizer", "schedule", "batch_size", "epochs", "validation")
        assert [spiking[field] for field in same] == [other[field] for field in same]
        assert (spiking["neuron"], other["neuron"]) == ("lif", "relu")
    assert found["pedestrian-mlp"].network == "784-400-2"
    assert found["pedestrian-cnn"].network == "28x28-6C3-300-2"


def _are_of(fields: dict[str, Any], experiment: dict[str, Any], but_epochs: bool) -> bool:
    return all(experiment[name] == value for name, value in fields.items() if name != "epochs" or not but_epochs)


def _standard_error(result: dict[str, Any], best: dict[str, Any]) -> float:
    """Where thousands of validation samples tell settings apart by less, the cheaper one may be chosen."""
    share = sum(best["validation_accuracy"]) / len(best["validation_accuracy"])
    return math.sqrt(share * (1 - share) / result["validation"]) if result["validation"] >= 5000 else 0.0


@pytest.mark.parametrize("path", sorted((results.FOLDER / "tuning").glob("*.json")), ids=lambda path: path.stem)
def test_the_settings_are_the_best_of_as_many_trials_for_each(path: Path):
    result = json.loads(path.read_text())
    name = result["experiment"].removesuffix("-twin")
    if name in ("pedestrian-mlp", "pedestrian-cnn"):
        assert len(result["trials"]) == 6
    repeats = result["seeds"] if "seeds" in result else result["tried_folds"]
    assert all(len(found["validation_accuracy"]) == len(repeats) for found in result["trials"])
    best = max(result["trials"], key=lambda found: sum(found["validation_accuracy"]))
    assert result["best"] == best["fields"]
    experiment = registry.experiment(result["experiment"]).flat()
    shorter = name.endswith("-paper-adam") or name == "nmnist-sim"  # a search over whole runs would take too long
    of_it = [t for t in result["trials"] if _are_of(t["fields"], experiment, but_epochs=shorter)]
    reached = max(sum(trial["validation_accuracy"]) for trial in of_it)
    assert reached >= sum(best["validation_accuracy"]) - _standard_error(result, best)
    if "epochs" in result:
        assert experiment["epochs"] == result["epochs"] or shorter
    if "commit" in result:
        assert not result["commit"].endswith("+")
    else:  # each trial has its own; with a mark where the working tree differed, if only by this file
        assert all(found["commit"] for found in result["trials"])
