import dataclasses
import inspect
import json
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbp import Experiment, config, nn
from stbp.experiments import results
from stbp.experiments.registry import experiment, experiments


def example(**fields) -> Experiment:
    return Experiment.of(**{"name": "x", "dataset": "digits", "network": "64-10", **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"T": 0}, "T must be at least 1; got 0"),
        ({"decay": 1.0}, r"decay must be in \[0, 1\)"),
        ({"threshold": math.inf}, "threshold must be positive"),
        ({"bias": -0.1}, "bias must be 0 or more"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": math.nan}, "learning_rate must be positive"),
        ({"seed": 2**32}, "seed must be in"),
        ({"epochs": 1.5}, "epochs must be int; got 1.5"),
        ({"epochs": True}, "epochs must be int; got True"),
        ({"surrogate": "step"}, "surrogate must be one of rectangle, polynomial"),
        ({"dataset": "imagenet"}, "dataset must be one of digits"),
        ({"name": "a/b"}, "usable as the name of a folder"),
        ({"momentum": 0.9}, "momentum has no effect with optimizer adam"),
        ({"weight_decay": -0.1}, "weight_decay must be 0 or more"),
        ({"optimizer": "sgd", "weight_decay": 0.1}, "weight_decay has no effect with optimizer sgd"),
        ({"step_epochs": 3}, "step_epochs has no effect with schedule cosine, only with step; omit it; got 3"),
        ({"schedule": "step", "step_epochs": 3}, "schedule step needs step_factor"),
        ({"patience": 3}, "patience needs a validation split"),
        ({"average": 1.0}, r"average must be in \(0, 1\); got 1.0"),
        ({"rate_penalty": -1.0}, "rate_penalty must be 0 or more"),
        (
            {"neuron": "relu", "T": 1, "init": "torch", "encoding": "static", "rate_penalty": 1.0},
            "rate_penalty has no effect with neuron relu",
        ),
    ],
)
def test_a_field_out_of_range_or_without_effect_is_named(fields, message, unchecked_shapes):
    with pytest.raises(ValueError, match=message):
        example(**fields)


def test_a_misspelt_field_gets_the_nearest():
    with pytest.raises(ValueError, match="no field 'epoch': did you mean epochs"):
        example().replace(epoch=3)
    assert example().replace(epochs=3).epochs == 3


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        example().epochs = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_every_field_has_its_comment_and_a_name_of_its_own():
    lines = [line.strip() for line in inspect.getsource(config).splitlines()]
    known = config.names(Experiment)
    assert len(known) == len(set(known)) == 43
    for name in known:
        place = next(i for i, line in enumerate(lines) if line.startswith(f"{name}: "))
        assert lines[place - 1].startswith("# "), name


def test_fields_are_read_and_written_by_their_names_alone():
    e = example(T=5, decay=0.5, epochs=3)
    assert (e.T, e.decay, e.epochs) == (e.window.T, e.neurons.decay, e.training.epochs) == (5, 0.5, 3)
    assert Experiment.of(**e.flat()) == e == pickle.loads(pickle.dumps(e))
    assert set(e.flat()) == set(config.names(Experiment))
    assert e.replace(neurons=config.Neurons()).decay == config.default("decay") == 0.2
    with pytest.raises(AttributeError, match="Experiment has no field 'tau'"):
        _ = e.tau


def test_every_published_result_is_read_and_has_its_file():
    for path in [*results.FOLDER.glob("*.json"), *(results.FOLDER / "variants").glob("*.json")]:
        stored = json.loads(path.read_text())["experiment"]
        e = Experiment.of(**stored)
        assert stored.items() <= e.flat().items()
        folds = json.loads(path.read_text()).get("folds")
        assert results.file_name(e if folds is None else e.replace(folds=folds, fold=0)) == path.stem


def test_the_learning_rate_follows_its_schedule():
    constant, cosine = (example(learning_rate=1.0, epochs=8, schedule=name) for name in ("constant", "cosine"))
    step = example(learning_rate=1.0, epochs=8, schedule="step", step_epochs=2, step_factor=0.1)
    assert [constant.training.rate_factor(epoch, 0.5) for epoch in (0, 4, 7)] == [1, 1, 1]
    assert [step.training.rate_factor(epoch, 0.5) for epoch in (0, 1, 2, 7)] == pytest.approx([1, 1, 0.1, 0.001])
    assert [cosine.training.rate_factor(epoch, 0.0) for epoch in (0, 4)] == pytest.approx([1, 0.5])
    assert cosine.training.rate_factor(7, 0.9999) == pytest.approx(0, abs=1e-8)


@given(progress=st.floats(0, 0.99), epoch=st.integers(0, 7))
def test_the_cosine_never_rises(progress, epoch):
    e = example(epochs=8)
    assert 0 <= e.training.rate_factor(epoch, progress + 0.009) <= e.training.rate_factor(epoch, progress)


def test_the_registry_holds_the_papers_networks_by_name():
    assert list(experiments())[:6] == ["digits-mlp", "folder", "mnist-mlp", "mnist-mlp-400", "mnist-cnn", "fashion-mlp"]
    assert all(name == e.name for name, e in experiments().items())
    assert experiment("mnist-mlp").network == "784-800-10"
    assert experiment("mnist-cnn").network == "28x28-15C5-P2-40C5-P2-300-10"
    for e in experiments().values():
        if e.dataset != "folder":  # whose data complete the network
            nn.build(e.network)


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match=r"'mnist-mpl'; did you mean mnist-mlp\?"):
        experiment("mnist-mpl")
