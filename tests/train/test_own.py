"""Networks and data of one's own: any module, tensors, data sets, loaders; modes, averages, resuming."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import stbp
from stbp import nn
from stbp.config import Window
from stbp.data import ImageSet, Windows
from stbp.ops import native
from stbp.train import checkpoint, fit
from stbp.train.evaluate import Run
from stbp.train.progress import Silent, stop_requests

T, N, K = 5, 12, 3
FIELDS: dict[str, Any] = {"epochs": 3, "learning_rate": 2e-2, "batch_size": 8}


def windows(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Three classes, each with a third of the inputs of its own that fires often."""
    random = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % K
    often = (torch.arange(N) // 4 == y[:, None]).float() * 0.8 + 0.05
    return (torch.rand(n, T, N, generator=random) < often[:, None]).float(), y


TRAIN, TEST = windows(60, 0), windows(30, 1)


class Skip(torch.nn.Module):
    """Two ways from input to output, a norm, dropout, and a parameter that nothing reads."""

    def __init__(self, unread: bool = False):
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Network(nn.Linear(N, 16), nn.LIF())
        self.norm, self.dropout = torch.nn.BatchNorm1d(16), torch.nn.Dropout(0.2)
        self.second, self.past = nn.Linear(16, K), nn.Linear(N, K)
        self.out = nn.LIF(surrogate="sigmoid", width=2.0)
        if unread:
            self.unread = torch.nn.Parameter(torch.ones(2, 2))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        hidden = self.dropout(self.norm(hidden.flatten(0, 1))).unflatten(0, hidden.shape[:2])
        return self.out(self.second(hidden) + self.past(x))


def spike_loss(o: Tensor, y: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(o.sum(0) / 2, y)


class Windowed(Dataset[tuple[Tensor, int]]):
    """Items as torch has them: a window and a number."""

    def __init__(self, x: Tensor, y: Tensor):
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.x[index], int(self.y[index])


class Noisy(Windowed):
    """A sample's noise is drawn anew whenever it is asked for."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return (self.x[index] + (torch.rand(T, N) < 0.1)).clamp(max=1), int(self.y[index])


class Endless(IterableDataset[Any]):
    def __iter__(self):
        raise AssertionError


IMAGES = ImageSet(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), ("a",))


def loader(data: Dataset[Any], **options: Any) -> DataLoader[Any]:
    return DataLoader(data, 8, shuffle=True, **options)


def tensors(net: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


SOURCES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "pair": lambda: (TRAIN, TEST),
    "dataset": lambda: (Windowed(*TRAIN), Windowed(*TEST)),
    "loader": lambda: (loader(TensorDataset(*TRAIN)), DataLoader(TensorDataset(*TEST), 7)),
    "loader with a generator": lambda: (loader(Noisy(*TRAIN), generator=torch.Generator()), TEST),
    "loader with noise": lambda: (loader(Noisy(*TRAIN)), TEST),
    "loader with workers": lambda: (loader(Noisy(*TRAIN), num_workers=1), TEST),
}


def fields_for(name: str) -> dict[str, Any]:
    return {key: value for key, value in FIELDS.items() if key != "batch_size" or "loader" not in name}


def stopped_and_resumed(train: Any, test: Any, calls: int, out: Path, monkeypatch: Any, **fields: Any) -> Run:
    @contextlib.contextmanager
    def requests(say):
        count = iter(range(1000))
        yield lambda: next(count) >= calls

    monkeypatch.setattr(fit, "stop_requests", requests)
    with pytest.raises(KeyboardInterrupt):
        stbp.fit(Skip(), train, test, out=out, report=Silent(), **fields)
    monkeypatch.setattr(fit, "stop_requests", stop_requests)
    return stbp.fit(Skip(), train, test, out=out, resume=True, report=Silent(), **fields)


@pytest.mark.parametrize("name", SOURCES)
def test_any_module_learns_from_any_source_and_resumes_bit_for_bit(name, tmp_path, monkeypatch):
    train, test = SOURCES[name]()
    net = Skip()
    run = stbp.fit(net, train, test, report=Silent(), **fields_for(name))
    assert run.network is net
    assert run.test_accuracy > 0.8
    assert [m["epoch"] for m in run.history] == [1, 2, 3]
    assert run.summary["training_samples"] == 60
    assert run.summary["test_samples"] == 30
    assert (run.shape, run.classes) == ((N,), ("0", "1", "2"))
    for calls in (3, 8, 11):  # 8 steps an epoch
        out = tmp_path / str(calls)
        again = stopped_and_resumed(*SOURCES[name](), calls, out, monkeypatch, **fields_for(name))
        assert equal(again.network, net), calls
        assert [m["test_accuracy"] for m in again.history] == [m["test_accuracy"] for m in run.history]


def test_own_loss_own_optimizer_average_and_norm_resume_bit_for_bit(tmp_path, monkeypatch):
    fields: dict[str, Any] = {
        "loss": spike_loss,
        "optimizer": lambda parameters: torch.optim.RMSprop(parameters, lr=1e-2),
        "average": 0.9,
        "schedule": "step",
        "step_epochs": 1,
        "step_factor": 0.5,
        "validation": 12,
        "epochs": 3,
        "batch_size": 8,
    }
    whole = stbp.fit(Skip(), TRAIN, TEST, report=Silent(), **fields)
    run = stopped_and_resumed(TRAIN, TEST, 9, tmp_path / "run", monkeypatch, **fields)
    assert equal(run.network, whole.network)
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["name"], config["own_loss"], config["average"]) == ("Skip", "spike_loss", 0.9)
    assert "lambda" in config["own_optimizer"]
    with pytest.raises(ValueError, match="its own_loss is 'spike_loss', not None"):
        stbp.fit(
            Skip(), TRAIN, TEST, out=tmp_path / "run", resume=True, report=Silent(), **{**fields, "loss": "rate_mse"}
        )


def test_the_schedule_scales_the_rates_of_an_own_optimizer():
    seen: list[list[float]] = []

    class Watching(torch.optim.SGD):
        def step(self, closure=None):
            seen.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    def make(parameters):
        first, *rest = parameters
        return Watching([{"params": [first], "lr": 0.4}, {"params": rest, "lr": 0.1}])

    steps: dict[str, Any] = {"schedule": "step", "step_epochs": 1, "step_factor": 0.5}
    stbp.fit(Skip(), TRAIN, TEST, optimizer=make, epochs=2, batch_size=60, report=Silent(), **steps)
    assert seen == [[0.4, 0.1], [0.2, 0.05]]


def test_images_become_windows_by_t_and_encoding():
    random = torch.Generator().manual_seed(0)
    y = torch.arange(40) % 2
    images = torch.randint(0, 60, (40, 1, 4, 4), generator=random, dtype=torch.uint8)
    images[torch.arange(40), 0, y * 3] = 250

    def learnt(x: Any, **fields: Any) -> Run:
        given = (x, x) if isinstance(x, ImageSet) else ((x, y), (x, y))
        return stbp.fit(
            nn.build("4x4-8-2", surrogate="sigmoid", width=2.0), *given, **{**FIELDS, **fields}, report=Silent()
        )

    run = learnt(images, T=6)
    assert run.test_accuracy > 0.9
    assert run.shape == (1, 4, 4)
    assert equal(learnt(ImageSet(images, y, ("a", "b")), T=6).network, run.network)
    bound = Windows(ImageSet(images, y, ("a", "b")), Window(T=6))
    assert equal(
        stbp.fit(nn.build("4x4-8-2", surrogate="sigmoid", width=2.0), bound, bound, report=Silent(), **FIELDS).network,
        run.network,
    )
    assert learnt(images.float() / 255, T=6).test_accuracy > 0.9
    assert learnt(images, T=2, encoding="static").test_accuracy > 0.9
    moved = learnt(images, T=6, shift=1)
    assert not equal(moved.network, run.network)
    assert stbp.evaluate(moved, (images, y)).accuracy == moved.test_accuracy


@pytest.mark.parametrize(
    ("train", "fields", "message"),
    [
        ((TRAIN[0][:, 0], TRAIN[1]), {}, r"x must be windows \[N, T, ...\]; for images give T=; got x .*\[60, 12\]"),
        ((TRAIN[0].transpose(0, 1), TRAIN[1]), {}, r"one sample each on its first axis.*\[5, 60, 12\], y .*\[60\]"),
        ((TRAIN[0].byte(), TRAIN[1]), {}, "uint8 are images, which need T="),
        ((TRAIN[0], TRAIN[1].float()), {}, r"y, int64 \[N\]"),
        ((TRAIN[0], TRAIN[1] + 1), {}, r"ends in 3 outputs, so classes are 0..2; got 1..3"),
        ((TRAIN[0].flatten(1), TRAIN[1]), {"T": 4}, r"Skip does not fit the data, whose samples are 60"),
        ((TRAIN[0][..., :8], TRAIN[1]), {}, "Skip does not fit the data, whose samples are 8"),
        (TRAIN, {"T": 4, "shift": 1}, r"shift, elastic and drop are for images \[N, C, H, W\], uint8"),
        (TRAIN, {"encoding": "static"}, "encoding is for images, which also need T"),
        (TRAIN, {"readout": 5}, "readout must be less than the 5 steps of the output; got 5"),
        (TRAIN, {"epoch": 3}, "no field 'epoch': did you mean epochs"),
        (TRAIN, {"momentum": 0.9}, "momentum has no effect with optimizer adam"),
        (TRAIN, {"validation": 60}, "validation must leave samples to train on, of which there are 60"),
        (TRAIN, {"optimizer": torch.optim.SGD, "weight_decay": 0.1}, "weight_decay has no effect with an optimizer"),
        (TRAIN, {"resume": True}, "resume has no effect without out"),
        (TRAIN, {"data": "x"}, "data has no effect with a network"),
        ([TRAIN], {}, "train must be a pair .* got list of tuple"),
        ((TRAIN[0].numpy(), TRAIN[1].numpy()), {}, "train must be a pair .* got tuple of ndarray, ndarray"),
        (IMAGES, {}, "train holds images: give .* T=10"),
        (Windowed(*TRAIN), {"T": 4}, "T and encoding have no effect on a Windowed, which gives windows"),
        (loader(TensorDataset(*TRAIN)), {"batch_size": 3}, "batch_size has no effect on a DataLoader"),
        (loader(TensorDataset(*TRAIN)), {"validation": 3}, "validation has no effect on a DataLoader"),
        (loader(TensorDataset(TRAIN[0])), {}, "a DataLoader must give pairs"),
        (loader(TensorDataset(TRAIN[0][:, 0], TRAIN[1])), {}, r"a batch of the DataLoader: x must be windows"),
        (Endless(), {}, "train is an IterableDataset: put it into a DataLoader"),
    ],
)
def test_what_does_not_go_together_is_named_before_a_folder_is_made(train, fields, message, tmp_path, unchecked_shapes):
    out = {} if "resume" in fields else {"out": tmp_path / "run"}
    with pytest.raises(ValueError, match=message):
        stbp.fit(Skip(), train, TEST, report=Silent(), **fields, **out)
    assert not (tmp_path / "run").exists()


def test_a_network_that_gives_no_window_is_told_what_it_gives():
    class Last(Skip):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[-1]

    with pytest.raises(ValueError, match=r"for x \[5, 1, 12\] it must give \[T, B, K\]; got \[1, 3\]"):
        stbp.fit(Last(), TRAIN, TEST, report=Silent())
    with pytest.raises(ValueError, match="a network needs its samples"):
        stbp.fit(Skip())
    with pytest.raises(ValueError, match="train and test go with a network"):
        stbp.fit("digits-mlp", TRAIN, TEST)


def test_steps_run_in_training_mode_and_all_else_in_evaluation_mode(monkeypatch):
    modes: list[tuple[bool, bool]] = []

    class Telling(Skip):
        def forward(self, x: Tensor) -> Tensor:
            modes.append((self.dropout.training, torch.is_grad_enabled()))
            return super().forward(x)

    net = Telling()
    net.norm.eval()
    before = torch.random.get_rng_state()
    stbp.fit(net, TRAIN, TEST, report=Silent(), **FIELDS)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (net.training, net.norm.training, net.dropout.training) == (True, False, True)
    steps = [training for training, gradients in modes if gradients]
    assert steps == [True] * 24 + steps[24:]  # 3 epochs of 8 steps; then the look at the kernels
    assert not any(training for training, gradients in modes if not gradients)


def test_looking_at_a_network_moves_no_running_mean(tmp_path):
    """One batch an epoch, so the statistics after it are those of that batch alone."""
    net, by_hand = Skip(), Skip()
    run = stbp.fit(net, TRAIN, TEST, epochs=1, batch_size=60, learning_rate=1e-9, report=Silent(), out=tmp_path)
    by_hand.train()
    by_hand(TRAIN[0].transpose(0, 1))
    torch.testing.assert_close(net.norm.running_mean, by_hand.norm.running_mean, rtol=1e-4, atol=1e-6)
    assert int(net.norm.num_batches_tracked) == 1  # pyright: ignore[reportArgumentType]
    state = tensors(net)
    assert stbp.evaluate(run, TEST).accuracy == run.test_accuracy == stbp.evaluate(run, TEST).accuracy
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())
    loaded = stbp.load_run(tmp_path, Skip())
    assert equal(loaded.network, net)
    assert stbp.evaluate(loaded, Windowed(*TEST)).accuracy == run.test_accuracy


def test_averaged_weights_come_with_the_buffers_of_the_live_network(tmp_path):
    net = Skip()
    run = stbp.fit(net, TRAIN, TEST, average=0.9, out=tmp_path, report=Silent(), **FIELDS)
    assert run.network is not net
    assert not torch.equal(run.network.second.weight, net.second.weight)
    assert torch.equal(run.network.norm.running_var, net.norm.running_var)  # pyright: ignore[reportArgumentType]
    assert int(run.network.norm.num_batches_tracked) == 24
    saved = checkpoint.load(tmp_path / checkpoint.FILE)
    assert torch.equal(saved.part("network")["norm.running_var"], run.network.norm.running_var)
    assert torch.equal(saved.part("live")["second.weight"], net.second.weight)


def test_a_norm_inside_a_network_of_ours_is_evaluated_with_its_running_means():
    """At 8bf525b a sample's answer depended on the samples labelled beside it."""
    net = nn.Network(nn.Linear(N, 16), torch.nn.BatchNorm1d(16), nn.LIF(), nn.Linear(16, K), nn.LIF())
    run = stbp.fit(net, TRAIN, TEST, report=Silent(), **FIELDS)
    net.eval()
    right = (net(TEST[0].transpose(0, 1)).sum(0).argmax(1) == TEST[1]).double().mean().item()
    one_by_one = [int(net(TEST[0][i : i + 1].transpose(0, 1)).sum(0).argmax()) == TEST[1][i] for i in range(30)]
    assert run.test_accuracy == right == sum(one_by_one) / 30


def test_after_epoch_may_stop_and_a_stopped_run_is_complete(tmp_path):
    seen: list[dict[str, Any]] = []

    def stop(metrics: dict[str, Any]) -> bool:
        seen.append(metrics)
        return len(seen) == 2

    run = stbp.fit(Skip(), TRAIN, TEST, out=tmp_path, after_epoch=stop, report=Silent(), **FIELDS)
    assert [m["epoch"] for m in seen] == [1, 2]
    assert run.history == seen
    assert run.summary["epochs"] == 2
    again = stbp.fit(Skip(), TRAIN, TEST, out=tmp_path, resume=True, report=Silent(), **FIELDS)
    assert again.history == seen
    assert equal(again.network, run.network)


def test_a_run_of_an_own_network_is_read_with_one_like_it(tmp_path):
    run = stbp.fit(Skip(), TRAIN, TEST, out=tmp_path, report=Silent(), **FIELDS)
    assert run.summary["experiment"] == "Skip"
    with pytest.raises(ValueError, match=r"network of your own, Skip; make one like it: load_run\(folder, net\)"):
        stbp.load_run(tmp_path)
    with pytest.raises(ValueError, match=r"the checkpoint is of another network: of 0\.weight it holds nothing"):
        stbp.load_run(tmp_path, nn.build("12-3"))
    with pytest.raises(ValueError, match="this needs the run of an experiment"):
        _ = run.experiment
    with pytest.raises(ValueError, match="give its test samples"):
        stbp.evaluate(run)
    stbp.fit("digits-mlp", network="64-10", T=2, epochs=1, out=tmp_path / "digits", report=Silent())
    with pytest.raises(ValueError, match="net has no effect"):
        stbp.load_run(tmp_path / "digits", Skip())
    with pytest.raises(ValueError, match="test has no effect"):
        stbp.evaluate(tmp_path / "digits", TEST)


def test_a_parameter_without_a_gradient_is_told_and_a_frozen_one_is_not():
    class Listener(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    said: list[str] = []
    net = Skip(unread=True)
    net.past.weight.requires_grad_(False)
    frozen = net.past.weight.clone()
    run = stbp.fit(net, TRAIN, TEST, report=Listener(), **FIELDS)
    assert sum("no gradient reaches its unread, so it does not learn" in text for text in said) == 1
    assert not any("past" in text for text in said)
    assert torch.equal(net.past.weight, frozen)
    assert run.test_accuracy > 0.8


@pytest.mark.skipif(native.kernels() is None, reason="needs the compiled kernels")
def test_kernels_that_ran_are_told_where_layers_run_one_by_one():
    """At 8bf525b the summary said "reference" for layers that a rate penalty keeps apart."""
    several: list[dict[str, Any]] = [{}, {"rate_penalty": 0.1}]
    for fields in several:
        run = stbp.fit("digits-mlp", network="64-20-10", T=3, epochs=1, report=Silent(), **fields)
        kernels = [
            record["kernels"]
            for record in run.summary["kernels"]
            if record["title"].split(" (")[1].startswith("Linear")
        ]
        assert len(kernels) == 2
        assert all(kernel["forward"] != "reference" for kernel in kernels), fields


@pytest.mark.parametrize(
    ("network", "whole"), [("20", "64-20-10"), ("4C3-P2", "8x8-4C3-P2-10"), ("4C3-12", "8x8-4C3-12-10")]
)
def test_sizes_of_input_and_output_are_taken_from_the_data(network, whole, tmp_path):
    run = stbp.fit("digits-mlp", network=network, T=2, epochs=1, out=tmp_path, report=Silent())
    assert run.experiment.network == whole
    assert json.loads((tmp_path / "config.json").read_text())["network"] == whole
    again = stbp.fit("digits-mlp", network=network, T=2, epochs=1, out=tmp_path, resume=True, report=Silent())
    assert again.history == run.history
    with pytest.raises(ValueError, match="64-20 does not fit digits: it ends in 20 outputs"):
        stbp.fit("digits-mlp", network="64-20", T=2, epochs=1, report=Silent())
