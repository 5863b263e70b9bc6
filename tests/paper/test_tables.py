import json
import subprocess
import sys

import pytest

from stbp.config import SEQUENCES
from stbp.experiments import registry, results
from stbp.paper.tables import CONSTANTS, FIGURES, TABLES, groups, parts, printed


def test_all_tables_and_curves_are_there():
    ours = ["fashion", "window", "rate", "sequences"]
    assert list(groups()) == ["table2", "table3", "table4", "table5", "table6", "table7", *ours, "fig6a", "fig6b"]
    assert [len(parts(group)) for group in groups().values()] == [8, 2, 9, 4, 2, 4, 4, 6, 4, 8, 4, 6]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.number)
def test_every_row_of_stbp_has_both_presets_and_every_other_is_a_quotation(table):
    for row in table.rows:
        assert (row.printed is None) == (row.certainty is None)
        assert row.printed is None or 0.9 < row.printed < 1 or table.number == "Fashion"
        if row.interval:
            assert row.interval[0] <= row.printed <= row.interval[1]
        if row.label.startswith("STBP") and table.number.startswith("Table"):
            assert row.paper
            assert row.tuned
        elif not row.label.startswith(("SDBP", "Not spiking (BP)", "STBP")):
            assert not row.paper + row.tuned


def test_rows_and_curves_refer_to_registered_experiments_of_their_network():
    for group in (*TABLES, *FIGURES):
        for part in parts(group):
            for e in (*part.paper, *part.tuned):
                registered = registry.experiment(e.name).flat()
                varied = {"folds", "fold", "surrogate", "width", "T", "rate_penalty"}
                for name, value in e.flat().items():
                    assert name in varied or value == registered[name]
    for table in TABLES:
        for row in table.rows:
            for e in (*row.paper, *row.tuned):
                assert e.network.rpartition("-")[0] == row.network.rpartition("-")[0]


def test_the_papers_preset_has_the_constants_of_table_1():
    e = registry.experiment("mnist-mlp-400-paper")
    assert (e.T, e.threshold, e.decay, e.width, e.gate, e.init, e.bias) == (30, 1.5, 0.1, 1.0, "paper", "paper", 0)
    assert (e.optimizer, e.learning_rate, e.schedule, e.epochs) == ("sgd", 0.5, "constant", 210)
    assert [registry.experiment(name).threshold for name in ("pedestrian-mlp-paper", "nmnist-mlp-paper")] == [2.0, 0.2]
    by_adam = registry.experiment("mnist-mlp-400-paper-adam")
    assert by_adam == e.replace(name=by_adam.name, optimizer="adam", learning_rate=1e-3, bias=1.5)
    assert registry.experiment("nmnist-mlp-paper-adam").bias == 0
    assert {constant.symbol for constant in CONSTANTS} >= {"T", "V_th", "tau", "a1..a4", "r"}


def test_the_rate_of_the_papers_mlp_on_pedestrians_was_chosen_on_validation_samples():
    tuning = json.loads((results.FOLDER / "tuning" / "pedestrian-mlp-paper-adam.json").read_text())
    assert tuning["validation"] > 0
    assert tuning["best"] == {"learning_rate": registry.experiment("pedestrian-mlp-paper-adam").learning_rate}


def test_the_curves_of_fig_6_differ_in_shape_or_width_alone():
    shapes, widths = FIGURES
    assert [curve.paper[0].width for curve in shapes.curves] == pytest.approx([1, 2, 4, 2.5066], abs=1e-4)
    assert [curve.tuned[0].width for curve in shapes.curves] == [1, 1, 1, 1]
    assert [curve.paper[0].width for curve in widths.curves] == [0.1, 1.0, 2.5, 5.0, 7.5, 10.0]
    assert len({curve.paper[0].surrogate for curve in shapes.curves}) == 4
    for figure in FIGURES:
        for index in (0, 1):
            assert len({curve.paper[index].replace(surrogate="rectangle", width=1.0) for curve in figure.curves}) == 1


def test_what_is_not_in_the_paper_varies_one_field_of_the_tuned_network():
    for name, field in (("window", "T"), ("rate", "rate_penalty")):
        experiments = [part.tuned[0] for part in parts(groups()[name])]
        assert len({getattr(e, field) for e in experiments}) == len(experiments)
        assert {e.replace(**{field: getattr(experiments[0], field)}) for e in experiments} == {experiments[0]}
        assert registry.experiment("mnist-mlp-400-tuned") in experiments


def test_every_task_over_time_is_there_with_and_without_gradients_through_time():
    sdbp, stbp = (
        [part.tuned[0] for part in parts(groups()["sequences"]) if part.label.startswith(method)]
        for method in ("SDBP", "STBP")
    )
    assert {e.dataset for e in stbp} == set(SEQUENCES)
    assert sdbp == [e.replace(name=f"{e.name}-sdbp", gate="spatial") for e in stbp]


def test_a_number_is_printed_for_the_papers_data_alone():
    assert printed("mnist-mlp") == (0.9889, "Table 2", "recalled")
    assert printed("nmnist-mlp") == (0.9878, "Table 4", "quoted")
    assert printed("pedestrian-mlp") == (None, None, None)
    assert printed("digits-mlp") == (None, None, None)


def test_the_tables_do_not_need_torch():
    code = "import stbp.cli.reproduce, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
