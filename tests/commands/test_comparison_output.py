"""What a comparison writes for a paper: figures whose fonts are in them, and tables that need no repair."""

import csv
import json
import re
from itertools import pairwise

import pytest
from matplotlib.text import Text

from lightning_edit.commands.comparison import compare
from lightning_edit.commands.comparison.figure import draw
from lightning_edit.commands.comparison.labels import apart
from lightning_edit.commands.comparison.lines import lines_of
from lightning_edit.commands.comparison.runs import read_runs
from lightning_edit.commands.comparison.written_table import latex_text, markdown_text
from tests.run_folders import write

NASTY = "a_b & 50% #1 {x} | *c*"


def curve(rate, points=4, metrics=("retention/efficacy_score",)):
    return [(at, {m: max(0.0, 0.9 - rate * at / 100) for m in metrics}) for at in range(8, 8 * points + 1, 8)]


def lines(folder, count, points=4, **settings):
    folders = [
        write(
            folder / f"{i}",
            64,
            0.9 - i / 20,
            curve(i, points, **settings),
            once=8,
            ridge=float(i),
            name=f"method {chr(65 + i)}",
        )
        for i in range(count)
    ]
    return lines_of(read_runs(folders)[0], "edits")


@pytest.mark.parametrize("kind", ["pdf", "svg", "png"])
def test_figures_are_a_column_wide_and_the_same_each_time(tmp_path, kind):
    runs = [str(write(tmp_path / name, 64, solver=name, curve=curve(1), once=8)) for name in ("EMMET", "MEMIT")]
    made = []
    for number in range(2):
        path = tmp_path / f"{number}" / f"figure.{kind}"
        compare(runs, output=str(path))
        made.append(path.read_bytes())
    assert made[0] == made[1]
    if kind == "pdf":
        assert re.search(rb"/MediaBox \[ 0 0 237\.6 ", made[0])  # 3.3 inches of 72 points
        assert b"/FontFile2" in made[0]
        assert b"/Type3" not in made[0]
    if kind == "svg":
        assert b'width="237.6pt"' in made[0]


def test_axes_of_percentages_are_whole_and_shared_unless_asked(tmp_path):
    metrics = ["retention/efficacy_score", "retention/paraphrase_score"]
    shown = lines(tmp_path, 2, metrics=metrics)
    first, second = draw(shown, metrics, "edits").axes
    assert first.get_ylim() == second.get_ylim()
    assert first.get_ylim()[0] <= 0 < 100 <= first.get_ylim()[1] < 110
    assert min(first.get_yticks()) <= 0
    zoomed = draw(shown, metrics, "edits", zoom=True).axes[0]
    assert zoomed.get_ylim()[0] > 20


def test_labels_at_the_ends_of_lines_do_not_lie_upon_each_other(tmp_path):
    figure = draw(lines(tmp_path, 6), ["retention/efficacy_score"], "edits")
    figure.canvas.draw()
    boxes = sorted((Text.get_window_extent(text) for text in figure.axes[0].texts), key=lambda box: box.y0)
    assert len(boxes) == 6
    assert all(lower.y1 <= upper.y0 + 1 for lower, upper in pairwise(boxes))
    edge = figure.bbox
    assert all(edge.x0 <= box.x0 and box.x1 <= edge.x1 + 1 and edge.y0 <= box.y0 and box.y1 <= edge.y1 for box in boxes)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([10, 30], [10, 30]),
        ([10, 12], [6, 16]),
        ([50, 50, 50], [40, 50, 60]),
        ([0, 1], [0, 10]),
        ([100, 99], [100, 90]),
        ([20, 25, 28, 80], [14.333, 24.333, 34.333, 80]),
    ],
)
def test_places_are_moved_no_more_than_they_must(places, expected):
    assert apart(places, 10, 100) == pytest.approx(expected, abs=1e-3)


def test_many_or_long_names_are_in_a_legend(tmp_path):
    figure = draw(lines(tmp_path, 9), ["retention/efficacy_score"], "edits")
    assert len(figure.legends[0].get_texts()) == 9
    assert not figure.axes[0].texts


def test_many_points_have_a_band_and_few_have_bars(tmp_path):
    for points, bands in ((4, 0), (12, 1)):
        measured = [(at, {"S": 0.5, "S_stderr": 0.05}) for at in range(2, 2 * points + 1, 2)]
        [line] = lines_of(read_runs([write(tmp_path / f"{points}", 64, 0.5, measured, once=2)])[0], "edits")
        [axes] = draw([line], ["S"], "edits").axes
        assert sum(type(one).__name__ == "FillBetweenPolyCollection" for one in axes.collections) == bands


def table(tmp_path, kind):
    runs = [write(tmp_path / "a", 64, 0.5, name="ours"), write(tmp_path / "b", 64, 0.75, solver="MEMIT")]
    path = tmp_path / f"table.{kind}"
    compare(list(map(str, runs)), output=str(tmp_path / "c.png"), labels=[NASTY, "MEMIT"], table=str(path))
    return path.read_text()


def test_a_latex_table_has_its_signs_escaped_and_the_best_in_bold(tmp_path):
    rows = table(tmp_path, "tex").splitlines()
    assert rows[1] == r"\begin{tabular}{lrrr}"
    assert rows[3] == r"method & edits & efficacy score (\%) & S (\%) \\"
    assert rows[5] == r"a\_b \& 50\% \#1 \{x\} \textbar{} *c* & 64 & 100.0 $\pm$ 1.0 & 50.0 \\"
    assert rows[6] == r"MEMIT & 64 & 100.0 $\pm$ 1.0 & \textbf{75.0} \\"
    assert latex_text("\\~^$<>") == r"\textbackslash{}\textasciitilde{}\textasciicircum{}\$\textless{}\textgreater{}"


def test_a_markdown_table_has_as_many_cells_in_each_row(tmp_path):
    from markdown_it import MarkdownIt

    text = table(tmp_path, "md")
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert html.count("<tr>") == 3
    assert html.count("<td") == 8
    assert "<td>a_b &amp; 50% #1 {x} | *c*</td>" in html
    assert "<strong>75.0</strong>" in html
    assert markdown_text("two\nlines") == "two lines"


def test_a_csv_table_holds_what_was_measured(tmp_path):
    first, second = csv.DictReader(table(tmp_path, "csv").splitlines())
    assert first["method"] == NASTY
    assert (float(first["S"]), float(second["S"]), float(first["S_before"])) == (0.5, 0.75, 0.3214)
    assert float(first["efficacy_score_error"]) == 0.01
    assert (first["edits"], first["seeds"], first["S_error"]) == ("64", "1", "")


def test_runs_of_edits_of_ones_own_have_their_row(tmp_path, capsys):
    own = write(tmp_path / "own", 8, path="edits.csv")
    content = json.loads((own / "metrics.json").read_text())
    content["after"] = {"efficacy_accuracy": 0.75, "efficacy_accuracy_n": 8, "generated_match": 0.5}
    content["before"] = {"efficacy_accuracy": 0.0}
    (own / "metrics.json").write_text(json.dumps(content))
    other = write(tmp_path / "other", 8)
    compare([str(own), str(other)], output=str(tmp_path / "c.png"), table=str(tmp_path / "t.csv"))
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert rows[0]["efficacy_accuracy"] == "0.75"
    assert rows[0]["efficacy_score"] == ""
    assert rows[1]["efficacy_score"] == "1.0"
    assert "not measured on the same data" in capsys.readouterr().out
