"""What the README shows is what there is."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import tyro

import stbp
from stbp.cli import train
from stbp.experiments import registry

ROOT = Path(stbp.__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE, DEFINITION = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_definition_is_the_references_own_lines():
    reference = [
        line.strip() for line in (ROOT / "stbp/ops/neuron/reference.py").read_text(encoding="utf-8").splitlines()
    ]
    lines = [line.strip() for line in DEFINITION.splitlines()]
    start = reference.index(lines[0])
    assert reference[start : start + len(lines)] == lines


@pytest.mark.slow
def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]):
    names: dict[str, Any] = {}
    exec(EXAMPLE.replace("epochs=5", "epochs=1"), names)
    assert names["net"](names["x"]).shape == (30, 100, 10)
    assert names["run"].test_accuracy > 0.7
    assert "Conv2d 2-16, 5x5" in capsys.readouterr().out


@pytest.mark.parametrize("line", sorted(set(re.findall(r"(?<=`|\n)(?:\.venv/bin/)?stbp train ([^`\n]*)", README))))
def test_every_train_command_is_understood(line):
    name, *flags = shlex.split(line.split("  ")[0].split(": ")[0].removesuffix(" --help"))
    if name != "NAME":
        flags = ["0" if flag == "S" else flag for flag in flags]
        tyro.cli(train.Train, args=flags, default=train.Train(registry.experiment(name)))


def test_every_path_it_names_exists():
    for path in re.findall(r"^(stbp/\S+|tests/|results/)", README, re.MULTILINE) + re.findall(
        r"\]\(([^)h]\S*)\)", README
    ):
        assert (ROOT / path).exists(), path
