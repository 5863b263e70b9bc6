import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import stbp
from stbp.cli import main
from stbp.data.image_file import read_image
from stbp.experiments import registry
from stbp.paper.quick import write_data
from stbp.train.progress import Silent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "small"
    stbp.fit("digits-mlp", network="64-20-10", T=5, epochs=2, learning_rate=1e-2, out=path, report=Silent())
    return path


@pytest.mark.parametrize(
    "args", [[], ["--help"], ["list"], ["train", "digits-mlp", "--wat"], ["trian"], ["train", "-h"]]
)
def test_help_list_and_mistakes_do_not_import_torch(args):
    code = f"""
import sys
sys.argv = ["stbp", *{args!r}]
from stbp.cli.main import main
try:
    main()
except SystemExit:
    pass
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trian"], "stbp has no command 'trian'; did you mean train?"),
        (["train"], "stbp train needs the name of an experiment"),
        (["train", "mnist-mpl"], "did you mean mnist-mlp?"),
        (["train", "mnist-mlp", "--data", "/nowhere"], "--data /nowhere: no such folder"),
        (["train", "digits-mlp", "--data", "."], "digits needs no files"),
        (["train", "digits-mlp", "--network", "64-2x-10"], "part 2 of network '64-2x-10' is '2x'"),
        (["train", "digits-mlp", "--threads", "0"], "threads must be at least 1; got 0"),
        (["eval", "nowhere"], "nowhere holds no run: there is no config.json in it"),
        (["predict", "nowhere"], "at least one file"),
        (["plot", "raster"], "plot raster takes one run; got 0"),
        (["plot", "surrogates", "--sample", "3"], "--sample has no effect on plot surrogates"),
        (["plot", "surrogates", "--data", "x"], "--data has no effect on plot surrogates"),
        (["report", "--add", "nowhere"], "nowhere holds no finished run"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(args, message, run_stbp, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run_stbp(*args)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "digits-mlp", "--epoch", "3"], "--epochs"),
        (["train", "digits-mlp", "--epochs", "0"], "epochs must be at least 1; got 0"),
        (["train", "digits-mlp", "--momentum", "0.9"], "momentum has no effect"),
        (["eval"], "RUN"),
    ],
)
def test_the_flag_parsers_mistakes_say_what_to_do(args, message, run_stbp):
    code, out, err = run_stbp(*args)
    assert code == 2
    assert message in " ".join((out + err).replace("│", " ").split())  # a box that breaks lines


def test_debug_shows_where_an_error_came_from(run_stbp):
    assert "Traceback" in run_stbp("eval", "nowhere", "--debug")[2]


def test_a_fault_of_ours_is_called_one(run_stbp, monkeypatch):
    monkeypatch.setitem(main.COMMANDS, "list", lambda: 1 / 0)
    code, _, err = run_stbp("list")
    assert code == 1
    assert "ZeroDivisionError" in err
    assert "--debug" in err


def test_list_shows_every_experiment(run_stbp):
    code, out, _ = run_stbp("list")
    assert code == 0
    for name, experiment in registry.experiments().items():
        assert name in out
        assert experiment.dataset in out
    entries = json.loads(run_stbp("list", "--json")[1])
    assert [entry["experiment"]["name"] for entry in entries] == list(registry.experiments())
    entry = next(entry for entry in entries if entry["experiment"]["name"] == "mnist-mlp")
    assert (entry["printed"], entry["certainty"]) == (0.9889, "recalled")


def test_train_help_shows_each_field_with_this_experiments_default(run_stbp):
    code, out, _ = run_stbp("train", "mnist-cnn", "--help")
    assert code == 0
    assert "28x28-15C5-P2-40C5-P2-300-10" in out
    for flag in ("--learning-rate", "--T INT", "--data DIR", "--resume", "--validation"):
        assert flag in out
    assert "{fixed}" not in out


@pytest.mark.slow
def test_train_resume_eval_and_plot(run_stbp, tmp_path: Path):
    args = ["train", "digits-mlp", "--network", "64-12-10", "--T", 4, "--epochs", 1, "--out", tmp_path / "run"]
    code, out, err = run_stbp(*args)
    assert code == 0
    assert "test accuracy" in out
    assert "epoch 1/1" in err
    assert run_stbp(*args)[0] == 2
    code, out, err = run_stbp("train", "digits-mlp", "--resume", "--out", tmp_path / "run")
    assert code == 0
    assert "is complete" in err
    code, _, err = run_stbp("train", "digits-mlp", "--resume", "--out", tmp_path / "run", "--T", 5)
    assert code == 2
    assert "its T is 4, not 5" in err
    code, _, err = run_stbp("train", "mnist-mlp", "--resume", "--out", tmp_path / "run")
    assert code == 2
    assert "holds a run of digits-mlp, not of mnist-mlp" in err
    result = json.loads(run_stbp("eval", tmp_path / "run", "--json")[1])
    assert result["test_accuracy"] == json.loads((tmp_path / "run/summary.json").read_text())["test_accuracy"]
    assert sum(map(sum, result["confusion"])) == 360
    code, out, _ = run_stbp("plot", "all", tmp_path / "run")
    assert code == 0
    pictures = [Path(line) for line in out.split()]
    assert len(pictures) == 7
    for path in pictures:
        with Image.open(path) as picture:
            assert min(picture.size) > 300


@pytest.mark.slow
@pytest.mark.parametrize("data", [False, True])
def test_the_commands_that_train_names_work_as_printed(data, run_stbp, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STBP_DATA", raising=False)
    args = ["train", "digits-mlp", "--network", "64-8-10", "--T", 2, "--epochs", 1, "--out", "a run; [red]"]
    if data:
        write_data(tmp_path / "data sets")
        flags = ["--T", 2, "--epochs", 1, "--batch-size", 20, "--out", "a run; [red]"]
        args = ["train", "mnist-mlp", "--network", "784-8-10", *flags, "--data", "data sets"]
    code, out, err = run_stbp(*args)
    assert code == 0, err
    commands = out.splitlines()[-1].removeprefix("next: ").split("   ")
    assert [shlex.split(command)[:2] for command in commands] == [["stbp", "eval"], ["stbp", "plot"]]
    for command in commands:
        code, _, err = run_stbp(*shlex.split(command)[1:])
        assert code == 0, err


def test_eval_prints_the_confusion_matrix(folder: Path, run_stbp):
    code, out, _ = run_stbp("eval", folder)
    assert code == 0
    assert "recall, %" in out
    assert "of 360 samples" in out


def test_predict_labels_files(folder: Path, run_stbp, tmp_path: Path):
    _, test_set = stbp.data.load("digits")
    files = []
    for index in range(20):
        files.append(tmp_path / f"{index}.png")
        Image.fromarray(test_set.images[index, 0].numpy()).save(files[-1])
    found = json.loads(run_stbp("predict", folder, *files, "--json")[1])
    right = sum(p["label"] == str(int(y)) for p, y in zip(found, test_set.labels, strict=False))
    assert right >= 12  # of 20, by 20 hidden neurons after 2 epochs; chance is 2
    assert all(len(p["counts"]) == 10 and max(p["counts"].values()) <= 5 for p in found)
    alone = json.loads(run_stbp("predict", folder, files[7], "--json")[1])
    assert alone[0] == found[7]
    code, out, _ = run_stbp("predict", folder, files[0])
    assert code == 0
    assert str(files[0]) in out


def test_predict_turns_dark_on_light_round(folder: Path, run_stbp, tmp_path: Path):
    _, test_set = stbp.data.load("digits")
    image = test_set.images[0, 0].numpy()
    Image.fromarray(image).save(tmp_path / "light.png")
    Image.fromarray(255 - image).resize((80, 80), Image.Resampling.NEAREST).save(tmp_path / "dark.png")
    light = json.loads(run_stbp("predict", folder, tmp_path / "light.png", "--json")[1])[0]
    dark = json.loads(run_stbp("predict", folder, tmp_path / "dark.png", "--invert", "--json")[1])[0]
    assert dark["counts"] == light["counts"]
    unturned = json.loads(run_stbp("predict", folder, tmp_path / "dark.png", "--json")[1])[0]
    assert "try --invert" in unturned["remark"]


def test_predict_reads_16_bits_and_transparency(tmp_path: Path):
    _, test_set = stbp.data.load("digits")
    grey = test_set.images[0, 0].numpy()
    Image.fromarray(grey.astype("uint16") * 257).save(tmp_path / "deep.png")
    assert torch.equal(read_image(tmp_path / "deep.png", (1, 8, 8))[0], test_set.images[0, 0])
    for ink, ground, invert in ((255, "light on nothing", False), (0, "dark on nothing", True)):
        strokes = np.full((8, 8, 4), ink, np.uint8)
        strokes[..., 3] = grey
        Image.fromarray(strokes).save(tmp_path / f"{ground}.png")
        seen = read_image(tmp_path / f"{ground}.png", (1, 8, 8), invert)[0]
        assert (seen.int() - test_set.images[0, 0].int()).abs().max() <= 1


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 20])
def test_predict_names_a_file_that_is_no_image(content, folder: Path, run_stbp, tmp_path: Path):
    (tmp_path / "x.png").write_bytes(content)
    code, _, err = run_stbp("predict", folder, tmp_path / "x.png")
    assert code == 2
    assert "x.png cannot be read as an image" in err
    assert "no such file" in run_stbp("predict", folder, tmp_path / "y.png")[2]


def test_a_damaged_checkpoint_is_named(folder: Path, run_stbp, tmp_path: Path):
    for name in ("config.json", "checkpoint.safetensors"):
        content = (folder / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2] if "checkpoint" in name else content)
    code, _, err = run_stbp("eval", tmp_path)
    assert code == 2
    assert "checkpoint.safetensors is damaged" in err
    (tmp_path / "config.json").write_text("{")
    assert "config.json is damaged" in run_stbp("eval", tmp_path)[2]


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_an_output_nobody_reads_is_no_error():
    code = "import sys; sys.argv = ['stbp', 'list', '--json']; from stbp.cli.main import main; sys.exit(main())"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
