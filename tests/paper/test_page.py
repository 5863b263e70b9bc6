import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from stbp.cli import main
from stbp.experiments import registry, stats
from stbp.experiments import results as report
from stbp.paper import markdown, study, tables
from stbp.paper.page import content, gradient, render, samples, studies
from stbp.paper.page.content import NONE
from stbp.paper.quantized import load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def html() -> str:
    seen = samples.Seen(missing=["nothing was named"])
    return render.render(report.FOLDER, load(report.FOLDER / render.CANVAS), seen)


class _Reader(HTMLParser):
    """Ids, links and nesting of a page."""

    VOID = ("meta", "link", "br", "path", "use")

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name in ("href", "src") and value]
        self.open += [] if tag in self.VOID else [tag]

    def handle_startendtag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def _result(name: str, accuracies: list[float], **fields) -> dict:
    """A result of that experiment with as many seeds, in the form of the files."""
    e = registry.experiment(name).replace(**fields)
    runs = [
        {
            "summary": {
                "seed": s,
                "epochs": e.epochs,
                "test_accuracy": a,
                "seconds": 1.0,
                "versions": {},
                "commit": "c",
            },
            "metrics": [{"test_accuracy": a - 0.001 * (e.epochs - epoch)} for epoch in range(1, e.epochs + 1)],
        }
        for s, a in enumerate(accuracies)
    ]
    stored = {k: v for k, v in e.flat().items() if k not in report.VARIED}
    seeds = list(range(len(accuracies)))
    return {
        "command": report.command(e),
        "experiment": stored,
        "test_accuracy": accuracies,
        "seeds": seeds,
        "runs": runs,
    }


def _ours(number: str, name: str, results: list[dict], label: str = "STBP") -> content.Measured:
    """What the page says of the experiment in that row."""
    table = next(table for table in tables.TABLES if table.number == number)
    line = next(line for line in content.lines(table, results) if line.row.label == label)
    return next(measured for measured in line.ours if measured.name == name)


def test_an_experiment_that_was_not_run_says_so_and_how_to_run_it():
    line = _ours("Table 2", "mnist-mlp", [])
    assert line.accuracy == "not yet run"
    assert line.command == "stbp train mnist-mlp --data DIR"
    assert line.remarks == ("for want of time: 12 epochs",)
    assert (line.own, line.difference, line.uncertainty, line.anchor) == (NONE, NONE, NONE, None)


def test_what_stands_between_backquotes_is_code_and_nothing_else_is_markup():
    assert content.marked("a <b> `stbp list` c") == "a &lt;b&gt; <code>stbp list</code> c"


def test_a_difference_has_the_interval_of_our_mean_over_seeds():
    line = _ours("Table 2", "mnist-mlp", [_result("mnist-mlp", [0.986, 0.988, 0.990])])
    assert line.accuracy == "98.80 ± 0.20"
    assert line.over == "3 seeds"
    assert line.own == "98.15 [97.70, 98.60]"
    assert line.difference == "\N{MINUS SIGN}0.09"
    assert line.uncertainty == f"± {stats.t_quantile(0.95, 2) * 0.2 / 3**0.5:.2f}, 3 seeds" == "± 0.50, 3 seeds"


def test_one_seed_leaves_the_uncertainty_of_its_test_set():
    line = _ours("Table 2", "mnist-mlp", [_result("mnist-mlp", [0.99])])
    assert line.uncertainty == "± 0.20, one seed"
    assert line.difference == "+0.11"


def test_a_shorter_run_is_called_one_and_yields_to_the_whole():
    short, whole = _result("mnist-cnn", [0.98], epochs=1), _result("mnist-cnn", [0.99])
    line = _ours("Table 5", "mnist-cnn", [short])
    assert line.remarks == ("1 of 10 epochs",)
    assert line.own == NONE
    line = _ours("Table 5", "mnist-cnn", [whole, short])
    assert line.remarks == ()
    assert line.accuracy == "99.00"
    other = _result("mnist-cnn", [0.5], threshold=0.9)
    assert _ours("Table 5", "mnist-cnn", [other]).anchor is None


def test_other_data_give_no_difference():
    line = _ours("Table 3", "pedestrian-mlp", [_result("pedestrian-mlp", [0.8, 0.9])])
    assert line.anchor
    assert (line.difference, line.uncertainty) == (NONE, NONE)


def test_every_published_number_is_on_the_page(html: str):
    for result in report.read_results():
        mean = 100 * sum(result["test_accuracy"]) / len(result["test_accuracy"])
        sheet = html.partition(f'<details id="{content.anchor(result)}">')[2].partition("</details>")[0]
        assert f"epochs: {mean:.2f}" in sheet
        for run in result["runs"]:
            assert f'data-label="test, %">{100 * run["summary"]["test_accuracy"]:.2f}<' in sheet
        assert result["command"] in sheet
    assert f"{100 * json.loads((report.FOLDER / 'mnist-mlp.json').read_text())['test_accuracy'][0]:.2f}" in html


def test_every_row_of_the_paper_is_on_the_page_with_how_sure_it_is(html: str):
    for table in tables.TABLES:
        part = html.partition(f"{table.title}</h3>")[2].partition("</table>")[0]
        for row in table.rows:
            assert str(row.label).replace("&", "&amp;").replace("'", "&#39;") in part
            if row.printed is not None:
                found = re.search(rf">{100 * row.printed:.2f} <span class=\"sure\">(\w+)</span>", part)
                assert found, row
        assert len(re.findall('class="run', part)) == sum(len(row.paper) + len(row.tuned) for row in table.rows)


def test_the_speed_table_is_the_benchmarks(html: str):
    benchmark = markdown.read_benchmark()
    assert benchmark is not None
    for name, found in benchmark["networks"].items():
        part, _, note = html.partition(f"<caption><b>{name}</b>")[2].partition("</table>")
        ours = found["subjects"]["stbp"]["step"]["median"]
        shown = re.findall(r'<th scope="row">(.*?)</th>.*?data-label="step, ms"><span>(.*?)<br>', part, re.DOTALL)
        shown = [(key.replace("&#39;", "'"), step) for key, step in shown]
        assert shown[0] == ("stbp", f"{1000 * ours:.3g}")
        times = re.findall(r'data-label="times ours">(.*?)</td>', part)
        for (key, step), ratio in zip(shown, times, strict=True):
            measured = found["subjects"][key]["step"]["median"]
            assert (step, ratio) == (f"{1000 * measured:.3g}", f"{measured / ours:.1f}")
        note = note.partition("<table>")[0].replace("&#39;", "'")
        absent = {key: s["status"] for key, s in found["subjects"].items() if key not in dict(shown)}
        assert all(f"{key}: {status}" in note for key, status in absent.items())


def test_all_trials_are_shown_the_chosen_one_first():
    for path in sorted((report.FOLDER / "tuning").glob("*.json")):
        tuning = json.loads(path.read_text())
        rows = content.trials(tuning)
        assert len(rows) == len(tuning["trials"])
        assert [best for _, _, best in rows] == [True] + [False] * (len(rows) - 1)
        assert sum(rows[0][1]) / len(rows[0][1]) >= sum(rows[-1][1]) / len(rows[-1][1])


def test_ids_are_unique_links_lead_somewhere_and_nothing_is_fetched(html: str):
    reader = _Reader()
    reader.feed(html)
    assert reader.open == []
    assert [name for name, times in Counter(reader.ids).items() if times > 1] == []
    inside = [link[1:] for link in reader.links if link.startswith("#")]
    assert set(inside) <= set(reader.ids)
    outside = {link for link in reader.links if not link.startswith(("#", "data:"))}
    assert outside == {"https://arxiv.org/abs/1706.02609"}
    assert not re.search(r"url\((?!#)|@import", html)


def test_text_of_results_is_escaped(tmp_path: Path):
    shutil.copytree(report.FOLDER / "tuning", tmp_path / "tuning")
    result = json.loads((report.FOLDER / "mnist-mlp.json").read_text())
    result["runs"][0]["summary"]["health"] = ["<img src=x onerror=alert(1)> & more"]
    result["command"] = 'stbp train "</code><script>alert(2)</script>"'
    (tmp_path / "mnist-mlp.json").write_text(json.dumps(result))
    html = render.render(tmp_path, None, samples.Seen())
    assert "&lt;img src=x onerror=alert(1)&gt; &amp; more" in html
    assert "<img" not in html
    assert "<script>alert" not in html


def test_a_page_of_nothing_says_what_is_missing(tmp_path: Path):
    html = render.render(tmp_path, None, samples.look(None, tmp_path))
    assert "made without a trained network" in html
    assert "stbp report --out report.html --network runs/mnist-mlp-400-seed0" in html
    assert "There is no result yet." in html
    assert "There is no benchmark yet" in html
    assert html.count("not yet run") > 20
    assert "Fig. 5: " in html


def test_the_gradient_that_is_printed_was_computed_and_can_be_wrong(html: str, monkeypatch: pytest.MonkeyPatch):
    found = gradient.check("rectangle", "linear")
    assert found.float64 < 1e-14
    assert found.float32 < 1e-6
    assert found.spikes == 0
    assert f'data-label="float64">{found.float64:.1e}<' in html
    plain = gradient._plain
    monkeypatch.setattr(gradient, "_plain", lambda net, x, y, s, gate, d: plain(net, x, y, s, "detached", d))
    assert gradient.check("rectangle", "linear").float64 > 1e-3


def test_all_gradients_agree():
    for found in gradient.checks():
        assert found.float64 < 1e-13, found
        assert found.float32 < 1e-5, found
        assert found.spikes == 0, found
    far = {(d.recursion, d.decay): d.distance for d in gradient.departures()}
    assert 0.01 < far["as printed", 0.1] < far["as printed", 0.2] < far["as printed", 0.5] < 1


def test_the_figures_take_the_pages_colours(html: str):
    drawn = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawn) >= 8
    for figure in drawn:
        assert set(re.findall(r"#[0-9a-f]{6}", re.sub(r'(href|base64)[^"]*"[^"]*"', "", figure))) == set()


def test_samples_are_drawn_from_data_that_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("STBP_DATA", raising=False)
    assert samples.look(None, None).missing == ["Fig. 4 and 5 show samples, and no data was named: add --data DIR"]
    seen = samples.look(load(report.FOLDER / render.CANVAS), tmp_path)
    assert [text[:7] for text in seen.missing] == ["Fig. 4:", "Fig. 5:"]
    assert (seen.digit, seen.events) == ([], [])


def test_the_command_line_writes_the_page_and_refuses_what_has_no_effect(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def run(*args: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["stbp", "report", *args])
        code = main.main()
        return code, capsys.readouterr().err

    monkeypatch.delenv("STBP_DATA", raising=False)
    assert run("--out", str(tmp_path / "page.html")) == (0, "")
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert run("--out", str(tmp_path / "page.pdf"))[0] == 2
    code, error = run("--network", "runs/a")
    assert (code, error.count("\n")) == (2, 1)
    assert "--out PAGE.html" in error
    assert run("--data", "x")[0] == 2
    code, error = run("--out", str(tmp_path / "b.html"), "--network", str(tmp_path / "none"))
    assert code == 2
    assert "holds no run" in error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["page.html"]


def test_the_published_network_is_what_its_file_says():
    found = load(report.FOLDER / render.CANVAS)
    assert found.experiment.network == "784-400-10"
    assert sum(s.weight.numel() for s in found.synapses) == 784 * 400 + 400 * 10
    assert all(s.weight.dtype == torch.int8 for s in found.synapses)
    assert found.about["quantized_accuracy"] > 0.98
    assert found.about["commit"]
    assert not found.about["commit"].endswith("+")


def test_runs_that_cannot_learn_are_shown_with_what_health_says_of_them():
    result = _result("mnist-mlp-paper", [0.1], epochs=1)
    result["runs"][0]["summary"] |= {"health": ["error: layer 1 never fires"], "cannot_learn": True}
    table = next(table for table in tables.TABLES if table.number == "Table 2")
    found = next(m for line in content.lines(table, [result]) for m in line.ours if m.name == "mnist-mlp-paper")
    assert found.anchor
    assert (found.difference, found.own) == (NONE, NONE)
    assert found.remarks[0].startswith("1 run stopped after the first epoch")
    assert found.remarks[1] == "error: layer 1 never fires"


def test_the_ablation_is_paired_by_seed():
    a = _result("mnist-mlp-400-paper-adam", [0.986, 0.988])
    b = _result("mnist-mlp-400-paper-sdbp-adam", [0.985, 0.986])
    table = next(table for table in tables.TABLES if table.number == "Table 7")
    [(pair, points)] = content.pairs(table, [a, b])
    assert pair.sdbp == "mnist-mlp-400-paper-sdbp-adam"
    half = stats.t_quantile(0.95, 1) * 0.05
    assert points == f"+0.15 [{0.15 - half:+.2f}, {0.15 + half:+.2f}], 2 seeds"


def _measured(name: str, folder: Path) -> dict:
    """Measurements of that network in a folder of results, made up."""
    e = registry.experiment(name)
    found = {
        "command": "c",
        "experiment": {k: v for k, v in e.flat().items() if k not in report.VARIED},
        "test_samples": 12_345,
        "accuracy_by_step": [0.9] * e.T,
        "density": [{"scale": s, "input_rate": 0.1 * s, "accuracy": 1 - 0.1 / s} for s in (0.5, 1.0)],
        "operations": [
            {"layer": "layer 0 (a)", "synaptic": 1500.4, "twin": 1000},
            {"layer": "layer 2 (b)", "synaptic": 30.0, "twin": 20},
        ],
    }
    path = study.path(e, folder)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found))
    return found


def test_a_measured_network_is_shown_and_another_is_not_yet_run(tmp_path: Path):
    _measured("mnist-mlp-400-tuned", tmp_path)
    (_, found, density), (_, absent, nothing) = studies.studies(tmp_path)
    assert found is not None
    assert density is not None
    assert (absent, nothing) == (None, None)
    html = render.render(tmp_path, None, samples.Seen())
    part = html.partition('<section id="beyond">')[2].partition("</section>")[0]
    assert "12,345" in part
    cells = re.findall(r'data-label="(?:synaptic operations|of the twin|ratio)">(.*?)</td>', part)
    assert cells == ["1,500", "1,000", "1.50", "30", "20", "1.50", "1,530", "1,020", "1.50"]
    assert study.NOT_COUNTED in part
    assert re.search(r"mnist-cnn-tuned, \S+: not yet run", part)
    assert "mnist-mlp-400-tuned, 784-400-10: not yet run" not in part
    assert "No firing rates yet" in part


def test_windows_and_rates_are_points_of_their_results():
    assert studies.rates([]) is None
    tuned = registry.experiment("mnist-mlp-400-tuned")
    short = _result(tuned.name, [0.96, 0.98], T=5)
    quiet = _result(tuned.name, [0.97], rate_penalty=0.1)
    quiet["runs"][0]["summary"]["firing_rate"] = [0.05, 0.1]
    other = _result(tuned.name, [0.5], rate_penalty=0.1, threshold=0.9)
    assert [(e.T, studies._error(r)) for e, r in studies._of("window", [short, quiet])] == [(5, pytest.approx(3.0))]
    [(e, found)] = studies._of("rate", [short, quiet, other])
    assert (e.rate_penalty, studies._hidden_rate(found)) == (0.1, 5.0)
    loud = _result(tuned.name, [0.98])
    loud["runs"][0]["summary"]["firing_rate"] = [0.2, 0.1]
    drawn = studies.rates([quiet, loud])
    assert drawn is not None
    assert ">penalty 0<" in drawn
    assert ">penalty 0.1<" in drawn


def test_how_far_a_gradient_reaches_is_a_share_of_the_last_steps(tmp_path: Path):
    networks = {
        "recall": {"test_accuracy": 0.75, "samples": 500, "norm": [2.0, 1.0, 0.5], "relative": [1.0, 0.5, 0.25]},
        "recall-sdbp": {"test_accuracy": 0.2, "samples": 500, "norm": [2.0, 0.0, 0.0], "relative": [1.0, 0.0, 0.0]},
    }
    assert studies.reach({}) is None
    found = {"command": "python x", "networks": networks}
    drawn = studies.reach(found)
    assert drawn is not None
    assert "recall-sdbp" not in drawn
    (tmp_path / "reach").mkdir()
    (tmp_path / "reach" / "gradient.json").write_text(json.dumps(found))
    part = render.render(tmp_path, None, samples.Seen()).partition('<h3 id="reach">')[2].partition("</table>")[0]
    rows = part.partition("<tbody>")[2].split("</tr>")[:-1]
    cells = [re.findall(r">([^<>]*)</td>", row) for row in rows]
    assert cells == [["75.00", "50", "25", NONE, NONE], ["20.00", "0", "0", NONE, NONE]]
    assert "500 test samples" in part


def test_variants_are_in_their_tables_and_not_among_the_learning_curves(tmp_path: Path):
    short = _result("mnist-mlp-400-tuned", [0.96], T=5)
    (tmp_path / "variants").mkdir()
    (tmp_path / "variants" / "short.json").write_text(json.dumps(short))
    html = render.render(tmp_path, None, samples.Seen())
    part = html.partition('<h3 id="window">')[2].partition("</table>")[0]
    assert ">96.00<" in part
    assert f'href="#{content.anchor(short)}"' in part
    assert "curve-mnist" not in html
