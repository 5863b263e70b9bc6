import dataclasses
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

import stbp
from stbp.bench import equality, gpu, memory, neurons, picture, run, subject, sweep, table, timing
from stbp.bench.device import copy_rate, event_clock, float32_convolutions, matrix_rate, most_memory
from stbp.bench.ratio import ratios
from stbp.bench.roofline import Rates, least_seconds, work
from stbp.bench.subject import ENTRIES, OURS, Entry, Subject, Task, TorchSubject, ours, ours_dense, stages
from stbp.bench.work import on_grid, synthetic_source, trained

TASK = Task("20-12-4", T=6, batch=5)
SOURCE = synthetic_source(TASK, density=0.3, samples=60)
PEERS = Path(stbp.__file__).parent.parent / "benchmarks" / "peers.py"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timing, "TURN", 1e-4)
    monkeypatch.setattr(memory, "measure", lambda folder, name: 8.0 if name == OURS else 32.0)


@pytest.fixture(scope="module")
def weights() -> list[torch.Tensor]:
    torch.set_num_threads(1)
    return trained(TASK, SOURCE, steps=3)


def _run(out: Path, **options) -> dict:
    options = {"networks": ["20-12-4"], "density": 0.3, "T": 6, "batch": 5, "rounds": 3, "threads": 1} | options
    return run.main(out=out, tell=lambda text: None, **options)


def test_a_run_without_peers_gives_a_table_a_file_and_a_picture(tmp_path: Path):
    result = _run(tmp_path / "bench")
    assert json.loads((tmp_path / "bench" / "cpu.json").read_text()) == result
    assert (tmp_path / "bench" / "cpu.png").stat().st_size > 10_000
    found = result["networks"]["20-12-4"]
    assert found["weights"] == "after 60 steps of our own training"
    for name in (OURS, "stbp, dense products"):
        row = found["subjects"][name]
        assert row["equality"]["verdict"] == "equal"
        assert row["step"]["rounds"] == row["inference"]["rounds"] == 3
        assert 0 < row["step"]["lower"] <= row["step"]["median"] <= row["step"]["upper"]
    assert found["ratios"]["step"] is None  # no peer was there
    console = Console(record=True, width=200)
    table.show(result, console)
    text = " ".join(console.export_text().split())
    assert "weights after 60 steps of our own training" in text
    assert "no sample's backward pass skipped" in text
    assert str(tmp_path) not in json.dumps(result)


def test_a_kernel_that_is_not_equal_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def wrong(task: Task) -> TorchSubject:
        subject = ours(task)
        start = subject.start

        def start_with_a_fault(weights, learning_rate):
            start([1.01 * w for w in weights], learning_rate)

        subject.start = start_with_a_fault
        return subject

    monkeypatch.setattr(subject, "ENTRIES", (Entry(OURS, "ours", wrong), ENTRIES[1]))
    with pytest.raises(ValueError, match=r"stbp is not timed on 20-12-4: it does not equal its reference"):
        _run(tmp_path)
    assert not (tmp_path / "cpu.json").exists()


@pytest.mark.parametrize(("share", "shown"), [(1.0409, "104"), (10.4, "1040"), (0.30529, "30.5"), (0.0004, "0.04")])
def test_how_far_a_peer_is_off_has_three_digits(share: float, shown: str):
    verdict = equality.Equality(None, equality.Difference(0.0, share)).verdict("a triangle")
    assert verdict == f"differs: gradient by {shown} % (a triangle)"


def test_the_grid_shows_one_spike_that_differs(weights):
    x, y = SOURCE.spikes(3, TASK)
    subject = ours_dense(TASK)
    subject.start(on_grid(weights), 0.0)
    o, gradients = subject.look(x, y)
    other = o.clone()
    other[0, 0, 0] = 1 - other[0, 0, 0]
    assert equality.difference(o, gradients, (o, gradients)).equal
    assert not equality.difference(other, gradients, (o, gradients)).equal
    assert not equality.difference(o, [1.001 * g for g in gradients], (o, gradients)).equal
    zeros = [torch.zeros_like(g) for g in gradients]
    assert equality.difference(o, gradients, (o, zeros)).gradient == pytest.approx(float("inf"))


def test_what_is_timed_does_not_move_the_weights(weights):
    subject = ours(TASK)
    subject.start(weights, 0.0)
    x, y = SOURCE.spikes(3, TASK)
    subject.step(x, y)
    assert all(torch.equal(p, w) for p, w in zip(subject.parameters, weights, strict=True))
    subject.start(weights, 1e-3)
    subject.step(x, y)
    assert not all(torch.equal(p, w) for p, w in zip(subject.parameters, weights, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "device must be auto, cpu or cuda"),
        ({"device": "cuda", "sweep": True}, "sweep runs on the cpu alone"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"density": 0.0}, r"density must lie in \(0, 1\]"),
    ],
)
def test_an_argument_out_of_its_range_is_an_error(options, message, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        _run(tmp_path, **options)


def test_out_that_is_a_file_and_peers_without_a_checkout_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="out must name a folder"):
        _run(tmp_path / "file")
    monkeypatch.setattr(stbp, "__file__", str(tmp_path / "site-packages" / "stbp" / "__init__.py"))
    with pytest.raises(ValueError, match="--peers needs a checkout"):
        _run(tmp_path, peers=True)


def test_a_peer_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(task: Task) -> TorchSubject:
        raise ModuleNotFoundError("No module named 'loguru'")

    missing = Entry("some peer", "peer", ours, package="stbp_no_such_package")
    monkeypatch.setattr(subject, "ENTRIES", (*ENTRIES, missing, Entry("half a peer", "peer", broken)))
    result = _run(tmp_path)
    subjects = result["networks"]["20-12-4"]["subjects"]
    assert subjects["some peer"]["status"] == "not installed"
    assert subjects["half a peer"]["status"] == "not installed: No module named 'loguru'"
    console = Console(record=True, width=200)
    table.show(result, console)
    assert console.export_text().count("not installed") == 3  # in the table, and the version of one


def _row(kind: str, step: float | None, compiled: bool = False) -> dict:
    spread = None if step is None else {"median": step, "lower": step, "upper": step, "rounds": 3}
    return {"kind": kind, "compiled": compiled, "status": "timed", "step": spread}


def test_ratios_are_to_the_fastest_peer_uncompiled_and_of_all():
    rows = {
        OURS: _row("ours", 0.01),
        "dense": _row("dense", 0.02),
        "alone": _row("bound", 0.03),
        "slow": _row("peer", 0.2),
        "fast": _row("peer", 0.08),
        "compiled": _row("peer", 0.05, compiled=True),
    }
    found = ratios(rows, "step")
    assert found is not None
    assert found["uncompiled"] == {"peer": "fast", "value": 0.08, "ratio": pytest.approx(8)}
    assert found["all"] == {"peer": "compiled", "value": 0.05, "ratio": pytest.approx(5)}
    assert ratios({OURS: rows[OURS]}, "step") is None
    assert ratios(rows, "epoch") is None


def test_an_epoch_is_scaled_from_its_parts_and_a_whole_one_is_summed():
    assert timing.scaled([1.0, 2.0, 9.0], 10, 600) == timing.Epoch(240.0, 600, 30)
    assert timing.scaled([1.0, 2.0, 9.0], 200, 600) == timing.Epoch(12.0, 600, 600)
    assert timing.scaled([1.0, 2.0, 3.0], 3, 7).timed == 7  # the last part is shorter
    subjects = {Entry("a", "ours", ours): (ours(TASK), 0.01), Entry("b", "dense", ours): (ours(TASK), 0.01)}
    fresh = list(TASK.build().parameters())
    found = timing.epochs(subjects, synthetic_source(TASK, 0.3, 1000), TASK.shape, fresh, TASK.batch)
    assert (found["a"].steps, found["a"].timed) == (200, 200)
    assert (found["b"].steps, found["b"].timed) == (200, 60)


def test_every_subject_has_its_turn_in_every_round():
    calls: list[str] = []
    actions = {name: (lambda n=name: calls.append(n)) for name in "abc"}
    found = timing.interleave(actions, dict.fromkeys("abc", 1.0), 3)
    assert calls == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert {s.rounds for s in found.values()} == {3}
    limited = timing.interleave(actions, {"a": 1.0, "b": 1.0, "c": 40.0}, 5, ["c"])
    assert [limited[n].rounds for n in "abc"] == [5, 5, 3]
    assert timing.spread([1.0, 2.0, 3.0, 4.0, 5.0]) == timing.Spread(3.0, 2.0, 4.0, 5)


def test_the_stages_are_the_network_in_torchs_modules():
    task = Task("12x12-2C3-P2-5-3", T=2, batch=2)
    net = task.build()
    mine = [p.shape for p in net.parameters()]
    assert [p.shape for stage in stages(task) for p in stage.parameters()] == mine
    assert len(stages(task)) == 3
    assert task.shape == (1, 12, 12)
    assert Task("34x34x2-8-10").shape == (2312,)
    assert Task("34x34x2-3C5-8-10").shape == (2, 34, 34)


@pytest.mark.parametrize("density", [0.05, 0.5, 0.8, 1.0])
def test_synthetic_input_has_the_density_that_it_is_called_by(density: float):
    task = dataclasses.replace(TASK, network="200-4-10", T=20, batch=100)
    x, y = synthetic_source(task, density).spikes(0, task)
    assert x.mean().item() == pytest.approx(density, abs=0.01)
    rates = [x[:, y == k].mean((0, 1)) for k in (0, 1)]
    assert density > 0.5 or not torch.allclose(rates[0], rates[1], atol=0.05)  # there is something to learn
    x, _ = synthetic_source(task, density, share=1.0).spikes(0, task)
    assert torch.allclose(x.mean((0, 1)), torch.tensor(density), atol=0.06)  # 2,000 draws for each input


def test_the_sweep_varies_one_axis_and_says_what_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert {p.task for p in sweep.points() if p.value == sweep.MAIN[p.axis]} == {Task("784-800-10")}
    assert {p.axis for p in sweep.points()} == {"T", "batch", "N", "density", "rate"}
    for axis, some, silent in (("density", 0.2, 0.5), ("rate", 0.2, 0.0), ("T", 10.0, 0.0)):
        source = sweep.Point(axis, some).source(SOURCE)
        assert source is SOURCE if axis == "T" else (source.images == 0).float().mean().item() == silent
    monkeypatch.setattr(sweep, "free_mib", lambda: 10.0)
    assert "MiB needed, 10 free" in sweep._point(Task("784-800-10"), SOURCE, ENTRIES, 3)["did_not_fit"]
    monkeypatch.setattr(sweep, "free_mib", lambda: None)
    steps = sweep._point(TASK, SOURCE, ENTRIES, 3)["step"]
    assert set(steps) == {e.name for e in ENTRIES}
    about = {"processor": "a processor", "threads": 1}
    points = [{"axis": axis, "value": v, "step": steps} for axis in sweep.AXES for v in (1, 10)]
    picture.draw_sweep(
        {**about, "points": [*points, {**points[0], "step": {}, "did_not_fit": "x"}]}, tmp_path / "s.png"
    )
    assert (tmp_path / "s.png").exists()


@pytest.mark.parametrize("name", ["authors' loop", "spikingjelly", "snntorch", "norse", "spyx"])
@pytest.mark.filterwarnings("ignore")
def test_a_peer_computes_what_the_reference_computes(name: str, weights):
    if not PEERS.exists():
        pytest.skip("no checkout")
    entry = next(e for e in subject.entries(peers=True) if e.name == name)
    if not entry.installed:
        pytest.skip(f"{name} is not installed")
    x, y = SOURCE.spikes(3, TASK)
    found = equality.Reference(TASK, weights, x, y).compare(entry, entry.build(TASK))
    assert found.grid is not None
    if name == "norse":  # a triangle in place of the rectangle
        assert found.timed.spikes == 0
    elif name == "snntorch":  # its reset is not differentiated
        assert found.grid.spikes == 0
    else:
        assert found.grid.equal


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own(tmp_path: Path, weights, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not tell the highest resident size")
    memory.store(tmp_path, TASK, weights, *SOURCE.spikes(3, TASK))
    found = memory.measure(tmp_path, OURS)
    assert found is not None
    assert 0 <= found < 100
    with pytest.raises(RuntimeError, match="memory of nobody failed"):
        memory.measure(tmp_path, "nobody")


def test_the_benchmark_of_a_gpu_measures_steps_and_neurons(monkeypatch: pytest.MonkeyPatch):
    """All of it but what only a GPU has: the graph, its events and its memory."""
    monkeypatch.setattr(neurons, "SHAPES", ((6,), (2, 3, 3)))
    monkeypatch.setattr(neurons, "STEPS", (2,))
    monkeypatch.setattr(neurons, "ELEMENTS", 100)
    monkeypatch.setattr(gpu, "matrix_rate", lambda dtype, device: 1e12)
    monkeypatch.setattr(gpu, "copy_rate", lambda device: 1e9)
    monkeypatch.setattr(gpu, "source_of", lambda task, images, density: SOURCE)
    here, kept = torch.device("cpu"), []
    peer = dataclasses.replace(ENTRIES[1], name="a peer", kind="peer")
    networks, keep = ["neurons", TASK.network], lambda found: kept.append(sorted(found["networks"]))
    measured = gpu.run((*ENTRIES, peer), 3, None, here, networks, TASK.T, TASK.batch, lambda text: None, keep)
    assert kept == [[], [TASK.network]]
    found = measured["networks"][TASK.network]
    assert {name: row["equality"]["verdict"] for name, row in found["subjects"].items()} == {
        **dict.fromkeys((OURS, "stbp, dense products", "a peer"), "equal"),
        **dict.fromkeys(("stbp, float32 products", "stbp, tf32 products"), "equal"),
        "stbp, recorded": "equal to the steps one by one",
    }
    assert all(row["step"]["rounds"] == 3 for row in found["subjects"].values())
    for name, ratio in found["ratios"].items():
        medians = [found["subjects"][subject]["step"]["median"] for subject in ("a peer", name)]
        assert ratio["step"]["all"]["ratio"] == pytest.approx(medians[0] / medians[1])
    assert found["least_seconds"]["products"] == pytest.approx(
        (found["work"]["bfloat16"] + found["work"]["float32"]) / 1e12
    )
    assert [row["shape"] for row in measured["neurons"]] == [[2, 8, 6], [2, 2, 2, 3, 3]]
    for row in measured["neurons"]:
        assert list(row["subjects"]) == [OURS, "a peer"]  # of the references nobody asks how fast they are
        ours = row["subjects"][OURS]
        assert ours["equality"] == "equal"
        for name in ("forward", "backward"):
            speed = row["copy"]["median"] / ours[name]["median"] * 12 / 8
            assert ours[f"{name}_of_copy"] == pytest.approx(speed)
    console = Console(width=200, record=True)
    table.show_gpu({**measured, "date": "b"}, console)
    shown = console.export_text()
    assert "2 x 8 x 6" in shown
    assert "equal" in shown
    assert "by products" in shown


def test_neurons_that_do_not_equal_the_reference_are_not_timed(monkeypatch: pytest.MonkeyPatch):
    wrong = dataclasses.replace(ENTRIES[0], build=lambda task: ours(dataclasses.replace(task, decay=0.5)))
    monkeypatch.setattr(neurons, "SHAPES", ((6,),))
    with pytest.raises(ValueError, match="not timed: neurons alone do not equal"):
        neurons.measure([wrong], 3, torch.device("cpu"), elements=1000)
    peer = dataclasses.replace(wrong, kind="peer", note="its decay")
    monkeypatch.setattr(neurons, "STEPS", (4,))
    (row,) = neurons.measure([peer], 3, torch.device("cpu"), elements=1000)
    assert row["subjects"][OURS]["equality"].startswith("differs: ")


def test_a_peer_that_fails_on_a_device_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch):
    def broken(task: Task) -> Subject:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(neurons, "SHAPES", ((6,),))
    monkeypatch.setattr(neurons, "STEPS", (4,))
    (row,) = neurons.measure([ENTRIES[0], Entry("x", "peer", broken)], 3, torch.device("cpu"), elements=100)
    assert row["subjects"]["x"]["status"] == "failed: RuntimeError: no such kernel"
    assert row["subjects"][OURS]["forward"]["rounds"] == 3


@pytest.mark.parametrize("shape", [(6,), (2, 3, 3)])
@pytest.mark.filterwarnings("ignore")
def test_peers_take_neurons_alone(shape: tuple[int, ...]):
    if not PEERS.exists():
        pytest.skip("no checkout")
    task, device = neurons.Neurons(T=4, batch=2), torch.device("cpu")
    x = torch.rand(4, 2, *shape)
    for entry in subject.entries(peers=True, device="cuda"):
        if entry.kind == "peer" and not entry.compiled and entry.installed:
            _, _, equality = neurons._prepare(entry, task, x, torch.ones_like(x), device)
            assert equality.timed.spikes == 0, entry.name


def test_the_work_of_a_step_is_counted_from_the_network():
    found = work(Task("8x8-3C3-P2-10", T=2, batch=5))
    frames, maps, pooled = 10, 3 * 36, 3 * 9
    products = frames * (maps * 9 + 10 * pooled)
    assert found.bfloat16 == 2 * 2 * 3 * products  # current and weight's gradient, in three parts
    assert found.float32 == 2 * frames * 10 * pooled  # the gradient of the second synapse's input alone
    parameters = 3 * 9 + 3 + 10 * pooled + 10
    neurons_moved = frames * (maps + 10) * (3 * 4 + 1 / 8 + 3 * 4)
    gradients = 4 * frames * (maps + 10) + 4 * frames * (10 + pooled)
    gradients += 4 * frames * (64 + pooled)  # counts of the input, a byte each, written and read twice
    assert found.bytes == 2 * frames * 8 + 40 * parameters + neurons_moved + gradients
    assert least_seconds(found, Rates(found.bytes, found.bfloat16, found.float32)) == {"memory": 1.0, "products": 2.0}


def test_a_clock_of_a_cpu_and_rates():
    assert event_clock(torch.device("cpu")) is timing.clock
    assert most_memory(lambda: None, torch.device("cpu")) is None
    assert matrix_rate(torch.float32, torch.device("cpu"), size=16) > 0
    assert copy_rate(torch.device("cpu"), elements=16) > 0


def test_a_recorded_step_whose_gradient_is_another_is_not_timed(weights):
    here = torch.device("cpu")
    batches = gpu.Batches(SOURCE, TASK, here)
    recorded = gpu.Recorded(gpu.OnDevice(ours(TASK), here, packs=True), batches, weights)
    assert recorded.check(gpu.OnDevice(ours(TASK), here, packs=True), weights).equal
    other = gpu.OnDevice(ours(dataclasses.replace(TASK, decay=0.5)), here, packs=True)
    recorded = gpu.Recorded(gpu.OnDevice(ours(TASK), here, packs=True), batches, weights)
    with pytest.raises(ValueError, match="not timed: its gradient is not that of the steps one by one"):
        recorded.check(other, weights)


def test_convolutions_of_all_are_float32_for_a_while():
    before = torch.backends.cudnn.conv.fp32_precision  # pyright: ignore[reportAttributeAccessIssue]
    with float32_convolutions():
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"  # pyright: ignore[reportAttributeAccessIssue]
    assert torch.backends.cudnn.conv.fp32_precision == before  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"T": 0}, "T must be at least 1; got 0"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"networks": ["784-x"]}, "part 2 of network '784-x'"),
        ({"networks": ["neurons"]}, "part 1 of network 'neurons'"),
        ({"sweep": True}, "omit T and batch; got 6, 5"),
    ],
)
def test_arguments_of_a_run_are_named(options: dict, message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        _run(tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_batches_on_a_device_go_round(monkeypatch: pytest.MonkeyPatch):
    batches, subject, seen = gpu.Batches(SOURCE, TASK, torch.device("cpu")), ours(TASK), []
    subject.start(trained(TASK, SOURCE, steps=1), 0.0)
    encode = subject.encode
    monkeypatch.setattr(subject, "encode", lambda *batch: seen.append(batch[2].tolist()) or encode(*batch))
    for _ in range(11):
        batches.step(subject)
    assert seen[0] == SOURCE.ids(0, 5).tolist()
    assert seen[9] == SOURCE.ids(9, 5).tolist()
    assert seen[10] == seen[0]
