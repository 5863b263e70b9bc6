"""Everything that decides a training run, in small frozen dataclasses; torch is not imported.

Parts nest, names do not: every field has a name of its own, so a field can be read, set and written by that name alone.
`e.T` is `e.window.T`, `e.replace(T=5)` changes it, and files hold the flat names.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, cast, get_args, get_origin, get_type_hints

from stbp.names import GateName, Init, Surrogate, hint

# Data sets by kind. A new one has its name here and in `Data.dataset`, and is read by `stbp.experiments.datasets`.
IMAGES = ("digits", "mnist", "fashion-mnist")  # of one size
SCALED = ("pedestrian", "folder")  # image files of any size
RECORDED = ("n-mnist", "mnist-simulated")  # recordings of an event camera
SEQUENCES = ("mnist-rows", "mnist-rows-permuted", "adding", "recall")  # a sample unfolds over time
FILELESS = ("digits", "adding", "recall")  # need no files


class Only(NamedTuple):
    """Fields that have an effect only where another field, `partner`, has one of some values."""

    fields: tuple[str, ...]
    partner: str
    values: tuple[str, ...]
    # Those of the values with which they are needed: their default is None.
    needed: tuple[str, ...] = ()


ONLY = (
    Only(("image_size",), "dataset", SCALED, needed=("pedestrian",)),
    Only(("sensor", "downscale", "test_share"), "dataset", ("folder",)),
    Only(("step_ms",), "dataset", (*RECORDED, "folder"), needed=RECORDED),
    Only(("counts", "jitter_ms"), "dataset", (*RECORDED, "folder")),
    Only(("first_saccade", "stabilize"), "dataset", RECORDED),
    Only(("encoding",), "dataset", (*IMAGES, *SCALED, *SEQUENCES)),
    Only(("elastic",), "dataset", (*IMAGES, *SCALED)),
    Only(("shift", "drop"), "dataset", (*IMAGES, *SCALED, *RECORDED)),
    Only(("folds", "fold"), "dataset", (*IMAGES, *SCALED, "n-mnist")),
    Only(("decay", "threshold", "surrogate", "width", "gate", "rate_penalty"), "neuron", ("lif",)),
    Only(("momentum",), "optimizer", ("sgd",)),
    Only(("weight_decay",), "optimizer", ("adam",)),
    Only(("step_epochs", "step_factor"), "schedule", ("step",), needed=("step",)),
)
# Of a network without spikes; the encoding only where the data set reads one.
TWIN: dict[str, Any] = {"T": 1, "encoding": "static", "init": "torch", "bias": 0.0}


class Range(NamedTuple):
    """The values that a field may have, in words and as a test; None is allowed where the type allows it."""

    words: str
    holds: Callable[[Any], bool]


def at_least(least: int) -> Range:
    return Range(f"at least {least}", lambda value: value >= least)


POSITIVE = Range("positive", lambda value: 0 < value < math.inf)
NOT_NEGATIVE = Range("0 or more", lambda value: 0 <= value < math.inf)
SIZE = Range("columns x rows, as 346x260", lambda v: re.fullmatch(r"[1-9][0-9]{0,4}x[1-9][0-9]{0,4}", v) is not None)
FOLDER_NAME = Range(
    "usable as the name of a folder", lambda value: value != "" and not set(value) & set('/\\:*?"<>|\0')
)


_F = TypeVar("_F", bound="Fields")


@dataclass(frozen=True)
class Fields:
    """A dataclass whose fields, and those of the parts in it, have names of their own.

    Raises:
        ValueError: a field of another type than its own or out of its range, or one without effect beside the others.
    """

    def __post_init__(self) -> None:
        for name, (kind, rules) in _hints(type(self)).items():
            _check(name, getattr(self, name), kind, rules)
        _check_partners(self.flat(), _defaults(type(self)))

    @classmethod
    def of(cls: type[_F], **fields: Any) -> _F:
        """The part with these fields, by their flat names; defaults for the others.

        Raises:
            ValueError: there is no such field; the message offers the nearest.
        """
        given = {}
        for own in dataclasses.fields(cls):
            part = _part(cls, own.name)
            inner = {name: fields.pop(name) for name in (names(part) if part else ()) if name in fields}
            if own.name in fields:
                given[own.name] = fields.pop(own.name)
            elif part and (inner or own.default is dataclasses.MISSING):
                given[own.name] = part.of(**inner)
        for name in fields:
            near = hint(name, names(cls), ": ") or f": it has {', '.join(names(cls))}"
            raise ValueError(f"{cls.__name__} has no field {name!r}{near}")
        return cls(**given)

    def flat(self) -> dict[str, Any]:
        """All fields by their names, as files hold them."""
        found: dict[str, Any] = {}
        for name, value in vars(self).items():
            found |= value.flat() if isinstance(value, Fields) else {name: value}
        return found

    def replace(self: _F, **fields: Any) -> _F:
        """The same with other values of some fields. Errors as for `of`."""
        return type(self).of(**{**self.flat(), **fields})

    def __getattr__(self, name: str) -> Any:
        """A field of a part of this one."""
        for part in vars(self).values():
            if isinstance(part, Fields) and name in names(type(part)):
                return getattr(part, name)
        raise AttributeError(f"{type(self).__name__} has no field {name!r}")


@dataclass(frozen=True)
class Data(Fields):
    """The samples."""

    # Data set; mnist-simulated is trained on simulated recordings and tested on real ones that show other images;
    # folder is what --data holds: images or recordings in folders of classes, idx files, arrays.
    dataset: Literal[
        "digits", "mnist", "fashion-mnist", "pedestrian", "folder", "n-mnist", "mnist-simulated",
        "mnist-rows", "mnist-rows-permuted", "adding", "recall",
    ]  # fmt: skip
    # Cross-validation: all samples of the data set, training and test together, are divided among this many folds of
    # equal share in every class; one is tested on, the others are trained on.
    folds: Annotated[int | None, at_least(2)] = None
    # The fold to test on, counted from 0.
    fold: int | None = None
    # Height and width that images are scaled to, with pedestrian and folder only; folder takes images that have one
    # size as they are.
    image_size: Annotated[int | None, at_least(1)] = None
    # Share of each class that is tested on, with folder where it holds no test set: 0.2 where None; the seed draws it.
    test_share: Annotated[float | None, Range("in (0, 1)", lambda v: 0 < v < 1)] = None
    # Columns x rows of the camera, as 346x260, with recordings in folder only; None takes what the files say, or the
    # largest coordinates.
    sensor: Annotated[str | None, SIZE] = None
    # Make one pixel of a square of this many columns and rows of the camera, with recordings in folder only.
    downscale: Annotated[int | None, Range("in 2..64", lambda v: 2 <= v <= 64)] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.folds is None) != (self.fold is None):
            raise ValueError(f"folds and fold go together; got folds {self.folds}, fold {self.fold}")
        if self.folds is not None and self.fold is not None and not 0 <= self.fold < self.folds:
            raise ValueError(f"fold must be in 0..{self.folds - 1} with folds {self.folds}; got {self.fold}")


@dataclass(frozen=True)
class Window(Fields):
    """Settings by which a sample becomes a window of input."""

    # Length of the time window in steps.
    T: Annotated[int, at_least(1)] = 30
    # How an image becomes input: random spikes at the rate of each pixel, or the same current in every step.
    encoding: Literal["bernoulli", "static"] = "bernoulli"
    # In training, move each sample by up to this many whole pixels along x and along y; zeros come in from outside.
    shift: Annotated[int, Range("a number of pixels in 0..255", lambda v: 0 <= v < 256)] = 0
    # In training, distort each image elastically: standard deviation in pixels of the displacements, which vary
    # smoothly over some 4 pixels (Simard et al., 2003, used 1.4).
    elastic: Annotated[float, Range("in [0, 100], a number of pixels", lambda v: 0 <= v <= 100)] = 0.0
    # In training, drop with this probability each pixel of an image, for the whole window, or each event of a
    # recording. What stays is not made stronger: a pixel cannot fire more often than in every step.
    drop: Annotated[float, Range("in [0, 1], a probability", lambda v: 0 <= v <= 1)] = 0.0
    # Milliseconds of a recording in one time step, with recordings only, as all of the next fields; folder divides the
    # longest training recording among the T steps where None.
    step_ms: Annotated[float | None, Range("in [0.001, 1e6]", lambda v: 0.001 <= v <= 1e6)] = None
    # How many events a pixel had in the step is its input, instead of whether it had one.
    counts: bool = False
    # The recording up to the end of the camera's first saccade, instead of all of it.
    first_saccade: bool = False
    # Move the events against the camera's path, so that the digit stands still.
    stabilize: bool = False
    # In training, change the time of each event by a random amount of this standard deviation, in milliseconds.
    jitter_ms: Annotated[float, Range("in [0, 1e6]", lambda v: 0 <= v <= 1e6)] = 0.0


@dataclass(frozen=True)
class Neurons(Fields):
    """The constants of spiking neurons."""

    # The paper's tau: what remains of the potential after one step without a spike, in [0, 1).
    decay: Annotated[float, Range("in [0, 1)", lambda v: 0 <= v < 1)] = 0.2
    # A neuron fires when its potential reaches this.
    threshold: Annotated[float, POSITIVE] = 0.3
    # The curve h1, h2, h3 or h4 that stands in for the derivative of the spike.
    surrogate: Surrogate = "rectangle"
    # Width of the surrogate: its peak is 1/width.
    width: Annotated[float, POSITIVE] = 1.0
    # Forget gate: decay*(1-o); the paper's exponential; reset not differentiated; no gradient through time (SDBP).
    gate: GateName = "linear"


@dataclass(frozen=True)
class Model(Fields):
    """The network at its start."""

    # Network in the paper's notation, as 784-800-10 or 28x28-15C5-P2-40C5-P2-300-10; with the sizes of input and output
    # taken from the data, as 800 or 15C5-P2-300.
    network: str
    # Spiking neurons, or the non-spiking network of the same shape for comparison: needs T 1, init torch, bias 0, with
    # images encoding static, and the fields of spiking neurons (decay, threshold, surrogate, width, gate,
    # rate_penalty) have no effect on it.
    neuron: Literal["lif", "relu"] = "lif"
    # Initial weights: scaled to threshold, decay and input; the paper's unit rows; PyTorch's default range.
    init: Init = "balanced"
    # Initial biases are drawn evenly from 0 up to this, in units of the threshold's; 0 leaves them at zero.
    bias: Annotated[float, NOT_NEGATIVE] = 0.0


@dataclass(frozen=True)
class Optimizer(Fields):
    """Settings by which a gradient changes the weights."""

    # Optimiser.
    optimizer: Literal["adam", "sgd"] = "adam"
    # Learning rate at the start.
    learning_rate: Annotated[float, POSITIVE] = 1e-3
    # Momentum, with sgd only.
    momentum: Annotated[float | None, Range("in [0, 1)", lambda v: 0 <= v < 1)] = None
    # With adam only: after each step, weights and biases shrink by this share times the learning rate (AdamW).
    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.0
    # Weights that are evaluated and kept: the mean of those after each step so far, where a step counts this many times
    # as much as the one after it; those of the last step alone where None.
    average: Annotated[float | None, Range("in (0, 1)", lambda v: 0 < v < 1)] = None


@dataclass(frozen=True)
class Schedule(Fields):
    """The learning rate over time."""

    # Learning rate over time: constant; times step_factor every step_epochs epochs; half a cosine down to zero.
    schedule: Literal["constant", "step", "cosine"] = "cosine"
    # Epochs between two steps of the schedule, with schedule step only.
    step_epochs: Annotated[int | None, at_least(1)] = None
    # Factor by which a step multiplies the learning rate, with schedule step only.
    step_factor: Annotated[float | None, Range("in (0, 1]", lambda v: 0 < v <= 1)] = None


@dataclass(frozen=True)
class Training(Fields):
    """Settings by which a network is trained, whatever the network and the data."""

    # How a gradient changes the weights.
    optimisation: Optimizer = field(default_factory=Optimizer)
    # The learning rate over time.
    rates: Schedule = field(default_factory=Schedule)
    # The paper's squared error of firing rates, or cross-entropy of spike counts.
    loss: Literal["rate_mse", "cross_entropy"] = "rate_mse"
    # Steps at the end of the window in which output spikes count, for loss and answer; all where None.
    readout: Annotated[int | None, at_least(1)] = None
    # Weight in the loss of the hidden layers' mean firing rate, in spikes per neuron and step. It takes the layers one
    # by one, not fused.
    rate_penalty: Annotated[float, NOT_NEGATIVE] = 0.0
    # Training samples in a batch.
    batch_size: Annotated[int, at_least(1)] = 100
    # Passes over the training samples.
    epochs: Annotated[int, at_least(1)] = 10
    # Decides initial weights, order of samples, their spikes and the validation split.
    seed: Annotated[int, Range("in [0, 2^32)", lambda v: 0 <= v < 2**32)] = 0
    # Training samples held out to measure validation accuracy, chosen by the seed.
    validation: Annotated[int, Range("a number of samples, 0 or more", lambda v: v >= 0)] = 0
    # Stop when validation accuracy has not risen for this many epochs; the last epoch's weights stay.
    patience: Annotated[int | None, at_least(1)] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patience is not None and self.validation == 0:
            raise ValueError("patience needs a validation split to watch; set validation to a number of samples")

    def rate_factor(self, epoch: int, progress: float) -> float:
        """Factor of the learning rate in epoch `epoch` (from 0), after a share `progress` in [0, 1) of its steps."""
        if self.rates.schedule == "cosine":
            return (1 + math.cos(math.pi * (epoch + progress) / self.epochs)) / 2
        if self.rates.step_epochs is not None and self.rates.step_factor is not None:
            return self.rates.step_factor ** (epoch // self.rates.step_epochs)
        return 1.0

    def blend(self, step: int) -> float:
        """The weight of step `step`, from 1, in the average: sum_s d^(step-s) w_s / sum_s d^(step-s), d = `average`."""
        decay = self.optimisation.average
        return 0.0 if decay is None else (1 - decay) / (1 - decay**step)


@dataclass(frozen=True)
class Experiment(Fields):
    """A training run by name. Two runs of equal experiments on one machine and number of threads are bit-equal."""

    # Name of the run; its folder is runs/NAME-seedS unless --out says otherwise.
    name: Annotated[str, FOLDER_NAME]
    # The samples.
    data: Data
    # The network at its start.
    model: Model
    # How a sample becomes a window of input.
    window: Window = field(default_factory=Window)
    # The constants of spiking neurons.
    neurons: Neurons = field(default_factory=Neurons)
    # How the network is trained.
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        super().__post_init__()
        dataset, T = self.data.dataset, self.window.T
        if self.training.readout is not None and self.training.readout >= T:
            raise ValueError(f"readout must be at least 1 and less than T, {T}; got {self.training.readout}")
        if dataset.startswith("mnist-rows") and T != 28:
            raise ValueError(f"T must be 28, the rows of an image, with dataset {dataset}; got {T}")
        if self.model.neuron == "relu":
            for name, value in TWIN.items():
                if getattr(self, name) != value and not (name == "encoding" and dataset in (*RECORDED, "folder")):
                    raise ValueError(f"neuron relu needs {name} {value}; got {name} {getattr(self, name)}")


@dataclass(frozen=True)
class Own(Fields):
    """A training run of a network and data that were given as objects, not by name."""

    # Class of the network.
    name: str
    # How images became windows; None where the data were windows.
    window: Window | None = None
    # Loss and optimiser where they were given as functions: how they are called.
    own_loss: str | None = None
    own_optimizer: str | None = None
    # How the network is trained.
    training: Training = field(default_factory=Training)


@cache
def _hints(cls: type[Fields]) -> dict[str, tuple[Any, tuple[Range, ...]]]:
    """The type of every field, and its ranges."""
    found = {}
    for name, written in get_type_hints(cls, include_extras=True).items():
        kind, *rules = get_args(written) if get_origin(written) is Annotated else (written,)
        found[name] = kind, tuple(rule for rule in rules if isinstance(rule, Range))
    return found


@cache
def _part(cls: type[Fields], name: str) -> type[Fields] | None:
    """The class of a field that is a part, `Window` of `Window | None` too; None of all others."""
    kind = _hints(cls)[name][0]
    kinds = get_args(kind) or (kind,)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Fields)), None)


@cache
def _defaults(cls: type[Fields]) -> dict[str, Any]:
    """The default of every field that has one, by flat name."""
    found: dict[str, Any] = {}
    for own in dataclasses.fields(cls):
        part = _part(cls, own.name)
        if part:
            found |= _defaults(part)
        elif own.default is not dataclasses.MISSING:
            found[own.name] = own.default
    return found


@cache
def names(cls: type[Fields]) -> tuple[str, ...]:
    """The flat names of all fields."""
    parts = ((own.name, _part(cls, own.name)) for own in dataclasses.fields(cls))
    return tuple(inner for name, part in parts for inner in (names(part) if part else (name,)))


def default(name: str) -> Any:
    """The default of an experiment's field, for files from before there was the field; None where it has none."""
    return _defaults(Experiment).get(name)


def _check(name: str, value: object, kind: object, rules: tuple[Range, ...]) -> None:
    """Raise ValueError unless the value is of the field's type, where an int will do for a float, and in its range."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}; got {value!r}")
        return
    types = cast(tuple[type, ...], get_args(kind) or (kind,))
    allowed = (*types, int) if float in types else types
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in types):
        words = " or ".join("nothing" if t is type(None) else t.__name__ for t in types)
        raise ValueError(f"{name} must be {words}; got {value!r}")
    for rule in rules:
        if value is not None and not rule.holds(value):
            raise ValueError(f"{name} must be {rule.words}; got {value!r}")


def _check_partners(values: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Raise ValueError for an option that would have no effect, or one that lacks its partner."""
    for fields, partner, wanted, needed in ONLY:
        for name in fields:
            if partner not in values or name not in values:
                continue
            value, has = values[name], values[partner]
            if value != defaults[name] and has not in wanted:
                raise ValueError(
                    f"{name} has no effect with {partner} {has}, only with {' or '.join(wanted)}; "
                    f"omit it; got {value!r}"
                )
            if value is None and has in needed:
                raise ValueError(f"{partner} {has} needs {name}; set it")
