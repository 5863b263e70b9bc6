"""`Experiment`: everything that decides a training run, in one frozen dataclass."""

import dataclasses
import difflib
import math
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from stbp.names import GateName, Init, Surrogate

SPIKING = ("decay", "threshold", "surrogate", "width", "gate", "rate_penalty")  # fields that only spiking neurons read
# what a network without spikes needs
TWIN: dict[str, Any] = {"T": 1, "encoding": "static", "init": "torch", "bias": 0.0}
FRAMES = ("counts", "first_saccade", "stabilize", "jitter_ms")  # fields that only recordings read
PICTURES = ("encoding", "elastic")  # fields that only images read
RECORDED = ("n-mnist", "mnist-simulated")  # data sets of recordings of an event camera
SCALED = ("pedestrian", "folder")  # data sets of image files of any size
SEQUENCES = ("mnist-rows", "mnist-rows-permuted", "adding", "recall")  # data sets of which a sample unfolds over time
FILELESS = ("digits", "adding", "recall")  # data sets that need no files
CHANGES = ("shift", "elastic", "drop", "folds")  # fields that sequences do not read


@dataclass(frozen=True)
class Experiment:
    """A training run. Two runs of equal experiments on one machine with the same number of threads are bit-equal.

    Raises:
        ValueError: a field out of its range, or one that would have no effect beside the others.
    """

    # Name of the run; its folder is runs/NAME-seedS unless --out says otherwise.
    name: str
    # Data set; mnist-simulated is trained on simulated recordings and tested on real ones that show other images.
    dataset: Literal[
        "digits", "mnist", "fashion-mnist", "pedestrian", "folder", "n-mnist", "mnist-simulated",
        "mnist-rows", "mnist-rows-permuted", "adding", "recall",
    ]  # fmt: skip
    # Network in the paper's notation, as 784-800-10 or 28x28-15C5-P2-40C5-P2-300-10.
    network: str
    # Length of the time window in steps.
    T: int = 30
    # Steps at the end of the window in which output spikes count, for loss and answer; all where None.
    readout: int | None = None
    # Cross-validation: all samples of the data set, training and test together, are divided among this many folds of
    # equal share in every class; one is tested on, the others are trained on.
    folds: int | None = None
    # The fold to test on, counted from 0.
    fold: int | None = None
    # Height and width that images are scaled to, with pedestrian and folder only; the others come in one size.
    image_size: int | None = None
    # How an image becomes input: random spikes at the rate of each pixel, or the same current in every step.
    encoding: Literal["bernoulli", "static"] = "bernoulli"
    # Spiking neurons, or the non-spiking network of the same shape for comparison: needs T 1, init torch, bias 0, with
    # images encoding static, and the fields of spiking neurons (decay, threshold, surrogate, width, gate,
    # rate_penalty) have no effect on it.
    neuron: Literal["lif", "relu"] = "lif"
    # In training, move each sample by up to this many whole pixels along x and along y; zeros come in from outside.
    shift: int = 0
    # In training, distort each image elastically: standard deviation in pixels of the displacements, which vary
    # smoothly over some 4 pixels (Simard et al., 2003, used 1.4).
    elastic: float = 0.0
    # In training, drop with this probability each pixel of an image, for the whole window, or each event of a
    # recording. What stays is not made stronger: a pixel cannot fire more often than in every step.
    drop: float = 0.0
    # Milliseconds of a recording in one time step, with recordings only, as all of the next fields.
    step_ms: float | None = None
    # How many events a pixel had in the step is its input, instead of whether it had one.
    counts: bool = False
    # The recording up to the end of the camera's first saccade, instead of all of it.
    first_saccade: bool = False
    # Move the events against the camera's path, so that the digit stands still.
    stabilize: bool = False
    # In training, change the time of each event by a random amount of this standard deviation, in milliseconds.
    jitter_ms: float = 0.0
    # The paper's tau: what remains of the potential after one step without a spike, in [0, 1).
    decay: float = 0.2
    # A neuron fires when its potential reaches this.
    threshold: float = 0.3
    # The curve h1, h2, h3 or h4 that stands in for the derivative of the spike.
    surrogate: Surrogate = "rectangle"
    # Width of the surrogate: its peak is 1/width.
    width: float = 1.0
    # Forget gate: decay*(1-o); the paper's exponential; reset not differentiated; no gradient through time (SDBP).
    gate: GateName = "linear"
    # Initial weights: scaled to threshold, decay and input; the paper's unit rows; PyTorch's default range.
    init: Init = "balanced"
    # Initial biases are drawn evenly from 0 up to this, in units of the threshold's; 0 leaves them at zero.
    bias: float = 0.0
    # The paper's squared error of firing rates, or cross-entropy of spike counts.
    loss: Literal["rate_mse", "cross_entropy"] = "rate_mse"
    # Optimiser.
    optimizer: Literal["adam", "sgd"] = "adam"
    # Learning rate at the start.
    learning_rate: float = 1e-3
    # Momentum, with sgd only.
    momentum: float | None = None
    # With adam only: after each step, weights and biases shrink by this share times the learning rate (AdamW).
    weight_decay: float = 0.0
    # Learning rate over time: constant; times step_factor every step_epochs epochs; half a cosine down to zero.
    schedule: Literal["constant", "step", "cosine"] = "cosine"
    # Epochs between two steps of the schedule, with schedule step only.
    step_epochs: int | None = None
    # What a step multiplies the learning rate by, with schedule step only.
    step_factor: float | None = None
    # Weights that are evaluated and kept: the mean of those after each step so far, where a step counts this many times
    # as much as the one after it; those of the last step alone where None.
    average: float | None = None
    # Weight in the loss of the hidden layers' mean firing rate, in spikes per neuron and step. It takes the layers one
    # by one, not fused.
    rate_penalty: float = 0.0
    # Training samples in a batch.
    batch_size: int = 100
    # Passes over the training samples.
    epochs: int = 10
    # Decides initial weights, order of samples, their spikes and the validation split.
    seed: int = 0
    # Training samples held out to measure validation accuracy, chosen by the seed.
    validation: int = 0
    # Stop when validation accuracy has not risen for this many epochs; the last epoch's weights stay.
    patience: int | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_type(field.name, getattr(self, field.name), _HINTS[field.name])
        self._check_ranges()
        self._check_partners()

    def _check_ranges(self) -> None:
        rules = {
            "T": (self.T >= 1, "at least 1"),
            "readout": (self.readout is None or 1 <= self.readout < self.T, "at least 1 and less than T"),
            "folds": (self.folds is None or self.folds >= 2, "at least 2"),
            "image_size": (self.image_size is None or self.image_size >= 1, "at least 1"),
            "step_ms": (self.step_ms is None or 0.001 <= self.step_ms <= 1e6, "in [0.001, 1e6]"),
            "shift": (0 <= self.shift < 256, "a number of pixels in 0..255"),
            "elastic": (0 <= self.elastic <= 100, "in [0, 100], a number of pixels"),
            "drop": (0 <= self.drop <= 1, "in [0, 1], a probability"),
            "jitter_ms": (0 <= self.jitter_ms <= 1e6, "in [0, 1e6]"),
            "decay": (0 <= self.decay < 1, "in [0, 1)"),
            "threshold": (0 < self.threshold < math.inf, "positive"),
            "width": (0 < self.width < math.inf, "positive"),
            "bias": (0 <= self.bias < math.inf, "0 or more"),
            "learning_rate": (0 < self.learning_rate < math.inf, "positive"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "0 or more"),
            "momentum": (self.momentum is None or 0 <= self.momentum < 1, "in [0, 1)"),
            "step_epochs": (self.step_epochs is None or self.step_epochs >= 1, "at least 1"),
            "step_factor": (self.step_factor is None or 0 < self.step_factor <= 1, "in (0, 1]"),
            "average": (self.average is None or 0 < self.average < 1, "in (0, 1)"),
            "rate_penalty": (0 <= self.rate_penalty < math.inf, "0 or more"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "epochs": (self.epochs >= 1, "at least 1"),
            "seed": (0 <= self.seed < 2**32, "in [0, 2^32)"),
            "validation": (self.validation >= 0, "a number of samples, 0 or more"),
            "patience": (self.patience is None or self.patience >= 1, "at least 1"),
            "name": (self.name != "" and not set(self.name) & set('/\\:*?"<>|\0'), "usable as the name of a folder"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise ValueError(f"{name} must be {rule}; got {getattr(self, name)!r}")

    def _check_partners(self) -> None:
        """An option that would have no effect is an error, and so is one that lacks its partner."""
        if (self.folds is not None) != (self.fold is not None):
            raise ValueError(f"folds and fold go together; got folds {self.folds}, fold {self.fold}")
        if self.folds is not None and self.fold is not None and not 0 <= self.fold < self.folds:
            raise ValueError(f"fold must be in 0..{self.folds - 1} with folds {self.folds}; got {self.fold}")
        if self.momentum is not None and self.optimizer != "sgd":
            raise ValueError(f"momentum has no effect with optimizer {self.optimizer}; use sgd or leave momentum away")
        if self.weight_decay and self.optimizer != "adam":
            raise ValueError(
                f"weight_decay has no effect with optimizer {self.optimizer}; use adam or leave weight_decay away"
            )
        for name in ("step_epochs", "step_factor"):
            if (getattr(self, name) is not None) != (self.schedule == "step"):
                raise ValueError(
                    f"{name} and schedule step go together; got {name} {getattr(self, name)}, schedule {self.schedule}"
                )
        if (self.image_size is not None) != (self.dataset in SCALED):
            raise ValueError(
                f"image_size goes together with dataset {' or '.join(SCALED)}; got image_size {self.image_size}, "
                f"dataset {self.dataset}"
            )
        self._check_events()
        if self.dataset in SEQUENCES:
            self._check_sequences()
        if self.neuron == "relu":
            self._check_twin()
        if self.patience is not None and self.validation == 0:
            raise ValueError("patience needs a validation split to watch; set validation to a number of samples")

    def _check_events(self) -> None:
        if (self.step_ms is not None) != (self.dataset in RECORDED):
            raise ValueError(
                f"step_ms goes together with dataset {' or '.join(RECORDED)}; got step_ms {self.step_ms}, "
                f"dataset {self.dataset}"
            )
        if self.folds is not None and self.dataset == "mnist-simulated":
            raise ValueError("folds have no effect with dataset mnist-simulated, which tests on real recordings alone")
        self._check_unused(PICTURES if self.step_ms is not None else FRAMES)

    def _check_sequences(self) -> None:
        self._check_unused(CHANGES)
        if self.dataset.startswith("mnist-rows") and self.T != 28:
            raise ValueError(f"T must be 28, the rows of an image, with dataset {self.dataset}; got {self.T}")

    def _check_unused(self, names: tuple[str, ...]) -> None:
        for field in dataclasses.fields(self):
            if field.name in names and getattr(self, field.name) != field.default:
                raise ValueError(
                    f"{field.name} has no effect with dataset {self.dataset}; leave it away; "
                    f"got {getattr(self, field.name)!r}"
                )

    def _check_twin(self) -> None:
        unused = {field.name: field.default for field in dataclasses.fields(self) if field.name in SPIKING}
        needed = {name: value for name, value in TWIN.items() if name != "encoding" or self.dataset not in RECORDED}
        for name, value in (needed | unused).items():
            if getattr(self, name) != value:
                rule = f"needs {name} {value}" if name in TWIN else f"leaves {name} without effect; leave it away"
                raise ValueError(f"neuron relu {rule}; got {name} {getattr(self, name)}")

    def replace(self, **fields: Any) -> "Experiment":
        """The same experiment with other values of some fields.

        Raises:
            ValueError: there is no such field; the message offers the nearest.
        """
        known = [field.name for field in dataclasses.fields(self)]
        for name in fields:
            if name not in known:
                nearest = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {nearest[0]}?" if nearest else f"it has {', '.join(known)}"
                raise ValueError(f"an experiment has no field {name!r}: {hint}")
        return dataclasses.replace(self, **fields)

    def learning_rate_at(self, epoch: int, progress: float) -> float:
        """The learning rate in epoch `epoch` (from 0), after the share `progress` in [0, 1) of its steps."""
        if self.schedule == "cosine":
            return self.learning_rate * (1 + math.cos(math.pi * (epoch + progress) / self.epochs)) / 2
        if self.step_epochs is not None and self.step_factor is not None:
            return self.learning_rate * self.step_factor ** (epoch // self.step_epochs)
        return self.learning_rate


def _check_type(name: str, value: object, hint: object) -> None:
    """Raise ValueError unless the value is of the field's type; an int will do for a float."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{name} must be one of {', '.join(get_args(hint))}; got {value!r}")
        return
    types = cast(tuple[type, ...], get_args(hint) or (hint,))
    allowed = (*types, int) if float in types else types
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in types):
        words = " or ".join("nothing" if t is type(None) else t.__name__ for t in types)
        raise ValueError(f"{name} must be {words}; got {value!r}")


_HINTS = get_type_hints(Experiment)
