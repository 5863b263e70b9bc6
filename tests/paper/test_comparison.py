from typing import Any, Literal

import pytest

from stbp.config import Experiment
from stbp.experiments import registry, results
from stbp.paper.comparison import compare, find, find_stopped, pairs
from stbp.paper.tables import Row, Table

OURS = registry.experiment("mnist-mlp-400")
SDBP = OURS.replace(name="mnist-mlp-400-paper", gate="spatial")  # any registered name


def result_of(experiment: Experiment, *accuracies: float, cannot_learn: bool = False) -> dict[str, Any]:
    """A result of seeds 0, 1, ..., whose earlier epochs were 1 point better each."""
    fields = {k: v for k, v in experiment.flat().items() if k not in results.VARIED}
    epochs = range(experiment.epochs)
    return {
        "command": f"stbp train {experiment.name}",
        "experiment": fields,
        "test_accuracy": list(accuracies),
        "seeds": list(range(len(accuracies))),
        "runs": [
            {
                "summary": {"seed": seed, "health": ["layer 3: silent"], "cannot_learn": cannot_learn},
                "metrics": [{"epoch": e + 1, "test_accuracy": last + (epochs[-1] - e) / 100} for e in epochs],
            }
            for seed, last in enumerate(accuracies)
        ],
    }


def table(data: Literal["same", "part", "other"] = "same") -> Table:
    row = Row("STBP", "784-400-10", 0.90, "recalled", paper=(SDBP,), tuned=(OURS,), data=data)
    return Table("Table 9", "nothing", (Row("Others", "784-10", 0.8, "quoted"), row))


def test_ours_is_the_last_epochs_mean_beside_the_papers_own_statistic():
    others, row = compare(table(), [result_of(OURS, 0.70, 0.72, 0.74)])
    assert others.measured == ()
    sdbp, ours = row.measured
    assert (sdbp.preset, sdbp.accuracy, sdbp.over) == ("paper", None, "not yet run")
    assert ours.accuracy is not None
    assert ours.difference is not None
    assert ours.last is not None
    assert (ours.accuracy.mean, ours.accuracy.sd) == (pytest.approx(0.72), pytest.approx(0.02))
    assert (ours.over, ours.preset) == ("3 seeds", "tuned")
    half = 4.3027 * 0.02 / 3**0.5
    assert ours.difference[0] == pytest.approx(-0.18)
    assert ours.difference[2:4] == (pytest.approx(-0.18 - half, abs=1e-5), pytest.approx(-0.18 + half, abs=1e-5))
    assert ours.last == (pytest.approx(0.745), pytest.approx(0.70), pytest.approx(0.79), 10)  # of 12, of seed 0


@pytest.mark.parametrize("data", ["part", "other"])
def test_no_difference_is_given_on_other_data(data: Literal["part", "other"]):
    ours = compare(table(data), [result_of(OURS, 0.7)])[1].measured[1]
    assert ours.accuracy is not None
    assert ours.difference is None


def test_a_result_is_found_by_what_was_run_and_not_by_its_name():
    known = [result_of(OURS, 0.7), result_of(OURS, 0.7, 0.8), result_of(OURS.replace(T=5), 0.1, 0.2, 0.3)]
    assert find(known, OURS) is known[1]
    assert find(known, OURS.replace(T=5)) is known[2]
    assert find(known, OURS.replace(T=6)) is None
    assert find(known, OURS.replace(folds=10, fold=0)) is None
    older = result_of(OURS, 0.7)
    del older["experiment"]["bias"]  # from before there was the field
    assert find([older], OURS) is older
    assert find([older], OURS.replace(bias=1.0)) is None


def test_runs_that_cannot_learn_are_counted_beside_the_others_and_spoil_the_difference():
    stopped = result_of(OURS.replace(epochs=1), 0.1, cannot_learn=True)
    short = result_of(OURS.replace(epochs=1), 0.1)
    assert find_stopped([stopped], OURS) is stopped
    assert find_stopped([short], OURS) is None  # somebody trained for one epoch
    alone = compare(table(), [stopped])[1].measured[1]
    assert (alone.stopped, alone.health, alone.difference) == (1, ("layer 3: silent",), None)
    assert alone.accuracy is not None
    assert alone.accuracy.mean == 0.1
    both = compare(table(), [stopped, result_of(OURS, 0.7, 0.8)])[1].measured[1]
    assert both.accuracy is not None
    assert (both.accuracy.mean, both.over, both.stopped, both.difference) == (pytest.approx(0.75), "2 seeds", 1, None)


def test_the_ablation_is_paired_by_seed():
    known = [result_of(OURS, 0.90, 0.80, 0.85), result_of(SDBP, 0.89, 0.79)]
    (pair,) = pairs(table(), known)
    assert (pair.stbp, pair.sdbp, pair.difference.n) == (OURS.name, SDBP.name, 2)
    assert pair.difference.mean == pytest.approx(0.01)
    assert pair.difference.sd == pytest.approx(0, abs=1e-9)
    assert pairs(table(), known[:1]) == []
