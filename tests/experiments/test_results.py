import json
from pathlib import Path

import pytest
import tyro

import stbp
from stbp.cli.train import Train
from stbp.config import Experiment
from stbp.experiments import registry
from stbp.experiments import results as report
from stbp.paper import markdown
from stbp.train.progress import Silent

ROOT = Path(stbp.__file__).parent.parent
SMALL = registry.experiment("digits-mlp").replace(network="64-10", T=2, epochs=1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    paths = [tmp_path_factory.mktemp("runs") / f"seed{seed}" for seed in (1, 0)]
    for path, seed in zip(paths, (1, 0), strict=True):
        stbp.fit(SMALL, seed=seed, out=path, report=Silent())
    return paths


def test_runs_of_several_seeds_join_into_one_result(folders, tmp_path: Path):
    path = report.collect(folders, tmp_path)
    assert path.name == "digits-mlp-network-64-10-T-2-epochs-1.json"
    result = json.loads(path.read_text())
    assert result["command"] == "stbp train digits-mlp --network 64-10 --T 2 --epochs 1 --seed S  (S: 0, 1)"
    assert result["seeds"] == [0, 1]
    accuracies = [json.loads((f / "summary.json").read_text())["test_accuracy"] for f in reversed(folders)]
    assert result["test_accuracy"] == accuracies
    a, b = (100 * value for value in accuracies)
    assert report.accuracy(result) == f"{(a + b) / 2:.2f} ± {abs(a - b) / 2**0.5:.2f}"
    assert [run["metrics"][0]["epoch"] for run in result["runs"]] == [1, 1]
    assert str(folders[0].parent) not in path.read_text()


def test_seeds_are_added_to_those_that_are_there(folders, tmp_path: Path):
    """A variant of a registered experiment lies apart; a seed that is there is not written over."""
    first = report.collect(folders[:1], tmp_path)
    assert first.parent == tmp_path / "variants"
    assert report.collect(folders[1:], tmp_path) == first
    assert first.read_text() == report.collect(folders, tmp_path / "at-once").read_text()
    before = first.read_text()
    with pytest.raises(ValueError, match=r"other than those in results; got seeds \[0, 1, 1\]"):
        report.collect(folders[:1], tmp_path)
    assert first.read_text() == before


def test_runs_that_do_not_belong_together_are_refused(folders, tmp_path: Path):
    with pytest.raises(ValueError, match="a seed of its own"):
        report.collect([folders[0], folders[0]], tmp_path)
    stbp.fit(SMALL, T=3, out=tmp_path / "other", report=Silent())
    with pytest.raises(ValueError, match="another experiment"):
        report.collect([folders[0], tmp_path / "other"], tmp_path)
    with pytest.raises(ValueError, match="holds no finished run"):
        report.collect([tmp_path / "nowhere"], tmp_path)
    stbp.fit(SMALL, name="mine", out=tmp_path / "mine", report=Silent())
    with pytest.raises(ValueError, match="mine is not registered"):
        report.collect([tmp_path / "mine"], tmp_path)


def between(path: str, begin: str, end: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8").partition(begin)[2].partition(end)[0].strip()


def test_the_tables_are_made_from_the_results():
    results = report.read_results()
    assert len(results) >= 3
    assert between("docs/results.md", markdown.BEGIN, markdown.END) == markdown.table(results)
    shown = between("README.md", markdown.BEGIN, markdown.END)
    assert shown == markdown.short_table(results)
    assert len(shown.splitlines()) == 2 + len(markdown.SHORT) == 10


@pytest.mark.parametrize("path", sorted(report.FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_a_published_result_is_what_its_command_says(path: Path):
    """Its command gives the stored experiment, its accuracies are the last epochs', and no machine's path is in it."""
    result = json.loads(path.read_text())
    command = result["command"].split("  (")[0].removesuffix(" --seed S").removesuffix(" --data DIR")
    _, verb, name, *rest = command.split()
    assert verb == ("crossvalidate" if "folds" in result else "train")
    folds = {"folds": report.FOLDS, "fold": 0} if "folds" in result else {}
    parsed = tyro.cli(Train, args=rest, default=Train(registry.experiment(name).replace(**folds))).experiment
    assert parsed.folds == result.get("folds")
    assert Experiment.of(**result["experiment"]) == parsed.replace(folds=None, fold=None)
    seeds = result["seeds"] * result.get("folds", 1)
    for accuracy, seed, run in zip(result["test_accuracy"], seeds, result["runs"], strict=True):
        assert run["summary"]["test_accuracy"] == accuracy == run["metrics"][-1]["test_accuracy"]
        assert run["summary"]["seed"] == seed
        assert len(run["metrics"]) == run["summary"]["epochs"] == Experiment.of(**result["experiment"]).epochs
        assert run["summary"]["commit"]
        assert not run["summary"]["commit"].endswith("+")
    assert "/" not in result["command"]


def test_a_cross_validation_says_how_many_folds_and_samples_it_is_over():
    result = {
        "command": "stbp crossvalidate digits-mlp",
        "experiment": SMALL.flat(),
        "test_accuracy": [0.9, 0.8],
        "seeds": [0],
        "folds": 2,
        "samples": 1797,
        "runs": [{"summary": {"epochs": 1}}],
    }
    row = "| digits | 64-10 | 2 | 1 | 85.00 ± 7.07 | 2 folds, 1,797 samples |  | `stbp crossvalidate digits-mlp` |"
    assert markdown.table([result]).splitlines()[-1] == row
    assert report.over({"seeds": [0]}) == "1 seed"
    assert report.over({"seeds": [0, 1]}) == "2 seeds"


def test_speeds_are_made_from_the_benchmark():
    benchmark = markdown.read_benchmark()
    assert benchmark is not None
    shown = between("docs/speed.md", markdown.BEGIN_SPEED, markdown.END_SPEED)
    assert shown == markdown.speed(benchmark)
    assert "784-800-10 | training step" in shown
    assert (ROOT / "docs/speed.svg").read_text(encoding="utf-8") == markdown.chart(benchmark)


def test_a_readme_without_the_markers_is_refused_and_nothing_is_written(tmp_path: Path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "results.md").write_text("nothing")
    filled = f"before\n{markdown.BEGIN}\nold\n{markdown.END}\nafter\n"
    (tmp_path / "README.md").write_text(filled)
    with pytest.raises(ValueError, match="must hold the lines"):
        markdown.update(tmp_path / "README.md", [])
    assert (tmp_path / "README.md").read_text() == filled
    (docs / "results.md").write_text(filled)
    markdown.update(tmp_path / "README.md", [])
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text


def test_seeds_are_added_to_an_earlier_result(folders, tmp_path: Path):
    _, earlier = report.join(folders[1:])
    _, both = report.join(folders[:1], earlier)
    assert both == report.join(folders)[1]
    with pytest.raises(ValueError, match="a seed of its own"):
        report.join(folders, earlier)
    earlier["experiment"]["T"] = 3
    with pytest.raises(ValueError, match="the earlier result is a run of another experiment"):
        report.join(folders[:1], earlier)
