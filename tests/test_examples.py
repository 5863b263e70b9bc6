"""Every example runs as its first lines say, and is short."""

import subprocess
import sys
from pathlib import Path

import pytest

import stbp

EXAMPLES = sorted((Path(stbp.__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path: Path, tmp_path: Path):
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    told = [line.split("accuracy ")[1] for line in done.stdout.splitlines() if "accuracy " in line]
    assert float(told[-1].split()[0]) > 85


def test_examples_are_short():
    assert len(EXAMPLES) == 4
    for path in EXAMPLES:
        assert len(path.read_text(encoding="utf-8").splitlines()) < 50, path
