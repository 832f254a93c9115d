"""Runs side by side: which make one line, its points, the table, and the picture."""

import json

import pytest
import yaml
from PIL import Image
from rich.console import Console

from lightning_edit.commands.comparison import compare
from lightning_edit.commands.comparison.figure import COLORS, draw
from lightning_edit.commands.comparison.lines import Point, lines_of, points_of
from lightning_edit.commands.comparison.methods import published
from lightning_edit.commands.comparison.quantities import quantity
from lightning_edit.commands.comparison.runs import read_runs
from lightning_edit.commands.comparison.settings import flat_settings, shortest_labels
from lightning_edit.commands.comparison.table import notes_of, table
from lightning_edit.configs import CONFIGS
from lightning_edit.errors import EditError
from lightning_edit.solvers import Solver
from lightning_edit.solvers.anchors import Anchor
from tests.run_folders import config, write

WEIGHTED = {"second_moment_weight": 100, "ridge": 0}
SPHERE = {"class_path": "SPHERE", "init_args": {"eta": 0.5, "alpha": 0.5}}
RECT = {"class_path": "RECT", "init_args": {"keep": 0.4}}
MEMIT = {"class_path": "MEMIT", "init_args": WEIGHTED}


def batches(tmp_path, sizes=(1, 16, 64)):
    """Two methods over batch sizes, S falling as 1 / (1 + batch / scale)."""
    return [
        write(tmp_path / f"{solver}_{size}", size, 1 / (1 + size / scale), solver=solver, ridge=ridge)
        for solver, ridge, scale in (("EMMET", 0.0, 100), ("MEMIT", 0.5, 200))
        for size in sizes
    ]


def run_compare(runs, tmp_path, **settings):
    compare([str(run) for run in runs], output=str(tmp_path / "out" / "comparison.png"), **settings)
    return tmp_path / "out"


# -- points and lines --------------------------------------------------------------------------------------------------


def test_a_run_is_a_line_through_its_beginning_its_curve_and_its_end(tmp_path):
    curve = [(0, {"S": 0.9, "other": 7.0}), (32, {"S": 0.6, "S_stderr": 0.05}), (16, {"S": 0.7}), (16, {"other": 8.0})]
    [run], _ = read_runs([write(tmp_path / "a", 64, 0.5, curve)])
    [line] = lines_of([run], "edits")
    # At 0 metrics.json says 0.3214, and it is the one that counts.
    assert points_of(line, "S", "edits") == (Point(0, 0.3214), Point(16, 0.7), Point(32, 0.6, 0.05), Point(64, 0.5))
    assert points_of(line, "other", "edits") == (Point(0, 7.0), Point(16, 8.0))
    assert points_of(line, "S", "batch_size") == (Point(64, 0.5),)
    assert points_of(line, "other", "batch_size") == ()
    assert points_of(line, "efficacy_score", "edits")[-1] == Point(64, 1.0, 0.01)


@pytest.mark.parametrize("x", ["edits", "batch_size"])
def test_runs_that_differ_in_the_number_of_edits_are_one_line(tmp_path, x):
    runs, _ = read_runs(batches(tmp_path))
    lines = lines_of(runs, x)
    assert [line.label for line in lines] == ["EMMET", "MEMIT"]
    start = (Point(0, 0.3214),) if x == "edits" else ()
    for line, scale in zip(lines, (100, 200), strict=True):
        points = (*start, *(Point(n, pytest.approx(1 / (1 + n / scale))) for n in (1, 16, 64)))
        assert points_of(line, "S", x) == points


def test_an_update_of_fewer_edits_is_a_batch_size_or_another_method(tmp_path):
    runs, _ = read_runs([write(tmp_path / str(once), 64, 0.5, once=once) for once in (4, 16, None)])
    [line] = lines_of(runs, "batch_size")
    assert [point.x for point in points_of(line, "S", "batch_size")] == [4, 16, 64]
    labels = [line.label for line in lines_of(runs, "edits")]
    assert labels == ["EMMET, 4 at once", "EMMET, 16 at once", "EMMET, all at once"]


def test_a_solver_that_takes_one_edit_has_batch_size_one(tmp_path):
    [run], _ = read_runs([write(tmp_path / "a", 64, solver="ROME")])
    assert (run.edits, run.batch_size) == (64, 1)


def test_curves_of_different_lengths_are_not_mixed(tmp_path):
    curve = [(16, {"S": 0.6})]
    runs, _ = read_runs([write(tmp_path / str(n), n, 0.5, curve, once=16) for n in (32, 64)])
    assert [line.label for line in lines_of(runs, "edits")] == ["EMMET, edits 32", "EMMET, edits 64"]


def test_two_runs_at_one_batch_size_are_told_apart_by_their_edits(tmp_path):
    folders = [write(tmp_path / f"{n}_{once}", n, once=once) for n, once in ((16, None), (64, 16), (64, 4))]
    runs, _ = read_runs(folders)
    lines = lines_of(runs, "batch_size")
    assert [(line.label, len(line.runs)) for line in lines] == [("EMMET, edits 16", 1), ("EMMET, edits 64", 2)]


def test_where_runs_of_a_line_meet_the_one_with_the_most_edits_counts(tmp_path):
    folders = [write(tmp_path / str(n), n, before={"S": n / 100}) for n in (16, 8)]
    [line] = lines_of(read_runs(folders)[0], "edits")
    assert [(point.x, point.value) for point in points_of(line, "S", "edits")] == [(0, 0.16), (8, 0.5), (16, 0.5)]


def test_given_labels_decide_which_runs_are_a_line(tmp_path):
    runs, _ = read_runs(batches(tmp_path, (1, 16)))
    lines = lines_of(runs, "batch_size", ["one", "one", "one", "two"])
    assert [(line.label, len(line.runs)) for line in lines] == [("one", 3), ("two", 1)]


# -- labels and settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("configs", "labels"),
    [
        ([config(), config("MEMIT", ridge=1.0)], ["EMMET", "MEMIT"]),
        ([config(emmet_lambda=0.1), config(emmet_lambda=0.0)], ["EMMET, emmet_lambda 0.1", "EMMET, emmet_lambda 0"]),
        (
            [config(emmet_lambda=0.1), config(emmet_lambda=0.0), config("MEMIT")],
            ["EMMET, emmet_lambda 0.1", "EMMET, emmet_lambda 0", "MEMIT"],
        ),
        ([config(layers=(3, 4, 5)), config(layers=(3,))], ["EMMET, layers 3-5", "EMMET, layer 3"]),
        ([config(layers=(3, 4, 9)), config("MEMIT")], ["EMMET, layers 3-4+9", "MEMIT, layer 17"]),
        ([config(path="a/cf.json"), config(path="a/zsre.json")], ["EMMET, path cf.json", "EMMET, path zsre.json"]),
        ([config(path="a/x.json"), config(path="b/x.json")], ["EMMET, path a/x.json", "EMMET, path b/x.json"]),
        ([config(a=1, b=1), config(a=1, b=2), config(a=3, b=3)], ["EMMET, b 1", "EMMET, b 2", "EMMET, b 3"]),
        ([config(edits=8), config(edits=9)], ["EMMET", "EMMET"]),
        ([config(), {**config(), "model": {**config()["model"], "evaluation": {"generate": True}}}], ["EMMET"] * 2),
    ],
)
def test_a_label_is_no_longer_than_it_must_be(configs, labels):
    assert shortest_labels([flat_settings(one) for one in configs]) == labels


def test_classes_may_be_given_in_each_of_their_forms():
    inner = {"model": "gpt", "solver": None, "edits_per_update": 4}
    nested = {"class_path": "lightning_edit.run.module.EditingModule", "init_args": inner}
    settings = flat_settings({"model": nested, "data": {"class_path": "a.Facts", "init_args": {"limit": 3, "seed": 1}}})
    assert settings == {
        "method": "EMMET",
        "model": "EditingModule",
        "model.model": "gpt",
        "model.solver": "EMMET",
        "model.edits_per_update": "4",
        "data": "Facts",
        "data.seed": "1",
    }


def test_a_method_without_solver_goes_by_its_class_and_its_batches_count():
    fine_tuning = {"_class_path": "lightning_edit.FineTuning", "lr": 0.001, "layers": [0]}
    configs = [{"model": fine_tuning, "data": {"batch_size": size}} for size in (1, 64)]
    settings = [flat_settings(one) for one in configs]
    assert shortest_labels(settings) == ["FineTuning, batch_size 1", "FineTuning, batch_size 64"]


@pytest.mark.parametrize(
    ("file", "changed", "method"),
    [
        ("encore", {}, "encore"),
        ("encore", {"values": {"mpes": 4}}, "encore"),
        ("encore", {"values": {"mpes": None}}, "memit_sequential"),
        ("memit_sequential", {"previous_keys": None}, "MEMIT"),
        ("emmet", {}, "EMMET"),
        ("alphaedit", {"edits_per_update": None}, "AlphaEdit"),
        ("rrome", {}, "RROME"),
        ("alphaedit", {"previous_keys": None}, "AlphaEdit"),
        ("lyaplock", {"previous_keys": None}, "lyaplock"),
        ("evoedit", {"previous_keys": None}, "evoedit"),
        ("simie", {"previous_keys": None}, "simie"),
        ("mend", {}, "mend, no net"),
        ("malmen", {}, "malmen, no net"),
        ("rect", {}, "rect"),
        ("rect", {"post_processing": [RECT, SPHERE]}, "RROME + RECT + SPHERE"),
        ("emmet", {"post_processing": [SPHERE]}, "EMMET + SPHERE"),
        ("encore", {"source": {"class_path": "Gradient"}, "post_processing": [SPHERE]}, "encore + Gradient + SPHERE"),
        ("mend", {"anchor": {"class_path": "RLSEdit"}}, "mend, no net + RLSEdit"),
        ("prune", {}, "prune"),
        ("ft", {}, "ft"),
        ("ft", {"norm_constraint": 0.1}, "ft_l"),
        ("ft_l", {"layers": [5]}, "ft_l"),
        ("encore", {"values": {"mpes": 0}}, "memit_sequential"),
        ("encore", {"values": {"mpes": 0}, "solver": MEMIT}, "memit_sequential"),
        ("emmet", {"solver": {"class_path": "EMMET", "init_args": {**WEIGHTED, "emmet_lambda": 0}}}, "EMMET"),
    ],
)
def test_a_method_is_named_as_its_file(file, changed, method):
    model = yaml.safe_load((CONFIGS / "solvers" / f"{file}.yaml").read_text())["model"]
    model["init_args"] |= {"model": "gpt", **changed}
    assert flat_settings({"model": model})["method"] == method


def test_what_is_added_to_a_method_is_in_its_name():
    assert published("encore + Gradient + SPHERE") == "ENCORE + Gradient + SPHERE"
    assert published("mend, no net + RLSEdit") == "MEND, no net + RLSEdit"
    plain, added = (config(**more) for more in ({}, {}))
    added["model"] |= {"post_processing": [SPHERE]}
    labels = shortest_labels([flat_settings(plain), flat_settings(added)])
    assert labels == ["EMMET", "EMMET + SPHERE"]


@pytest.mark.parametrize("file", sorted((CONFIGS / "solvers").glob("*.yaml"), key=str), ids=lambda file: file.stem)
def test_each_file_of_a_method_is_recognized_as_itself(file):
    model = yaml.safe_load(file.read_text())["model"]
    model["init_args"] |= {"model": "gpt", "layers": [3]}
    if "net" in model["init_args"].get("source", {}).get("init_args", {}):
        model["init_args"]["source"]["init_args"]["net"] = "nets/a"
    name = flat_settings({"model": model}, given=file.stem)["method"]
    assert file.stem in (name, name.lower())
    assert published(name) != "Ridge"


@pytest.mark.parametrize(
    ("name", "value", "text", "lower"),
    [
        ("S", 0.5, "50.0", False),
        ("retention/efficacy_magnitude", -0.123, "-12.3", False),
        ("downstream/sst/label_f1", 1.0, "100.0", False),
        ("generation_entropy", 6.187, "6.19", False),
        ("essence_score", 23.456, "23.46", True),
        ("downstream/perplexity", 23.456, "23.46", True),
        ("update_norm", 0.5, "0.5", False),
        ("downstream/sst/invalid", 0.15, "15.0", True),
        ("harness/lambada_openai/acc", 0.5, "50.0", False),
        ("harness/gsm8k/exact_match/strict-match", 0.5, "50.0", False),
        ("harness/arc_easy/acc_norm", 0.5, "50.0", False),
        ("harness/wikitext/bits_per_byte", 0.72, "0.72", True),
        ("harness/wmt14-en-fr/ter", 61.5, "61.5", True),
        ("harness/a_task/brier_score", 0.25, "0.25", True),
        ("harness/truthfulqa_gen/bleu_acc", 0.5, "50.0", False),
        ("downstream/perplexity", 12345.6, "12,346", True),
    ],
)
def test_units_follow_from_names(name, value, text, lower):
    assert (quantity(name).text(value), quantity(name).lower_is_better) == (text, lower)


def test_what_the_method_decides_is_the_same_where_it_is_left_to_it():
    def keys(**settings):
        return flat_settings({"model": {"previous_keys": None, **settings}})["model.previous_keys"]

    kinds = [(Solver, "solver"), (Anchor, "anchor")]
    for kind, part in kinds:
        for cls in kind.__subclasses__():
            kept = cls.preserves_edits if kind is Solver else cls.keeps_keys
            assert keys(**{part: {"class_path": f"lightning_edit.{cls.__name__}"}}) == str(kept).lower()
    apart = {"class_path": "lightning_edit.AlphaEdit"}
    assert keys(solver=apart, independent_updates=True) == "false"


def test_a_run_that_ended_early_has_a_note(tmp_path):
    folder = write(tmp_path / "a", 4)
    content = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({**content, "not_made": 20}))
    runs, _ = read_runs([folder])
    [note] = notes_of(runs, lines_of(runs, "edits"), ["S"], "edits")
    assert note == (
        "a: 20 edits were not made, as the run ended before their turn; its figures count them as edits that failed."
    )
    (folder / "metrics.json").write_text(json.dumps({**content, "not_made": "all"}))
    with pytest.raises(EditError, match="`not_made` must be a whole number from 0"):
        read_runs([folder])


# -- what is shown and written -----------------------------------------------------------------------------------------


def test_the_table_shows_before_after_errors_and_the_best(tmp_path):
    folders = [write(tmp_path / "a", 64, 0.5, ridge=1), write(tmp_path / "b", 64, 0.75, ridge=2)]
    runs, _ = read_runs(folders)
    console = Console(width=200, record=True, force_terminal=True, file=(tmp_path / "shown").open("w"))
    console.print(table(runs, lines_of(runs, "edits"), ["efficacy_score", "S"]))
    styled = console.export_text(styles=True)
    for text in ("25.0 ->", "100.0 ±1.0", "32.1 ->", "EMMET, ridge 1", "\x1b[1m75.0"):
        assert text in styled
    assert "\x1b[1m50.0" not in styled
    assert "\x1b[1m100.0" not in styled  # both have it


def test_everything_is_written(tmp_path, capsys):
    batches(tmp_path / "runs")
    out = run_compare([tmp_path / "runs"], tmp_path, x="batch_size")
    assert sorted(path.name for path in out.iterdir()) == ["comparison", "comparison.png"]
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("EMMET_16", "MEMIT_64", "92.6", "4.0", "comparison.png"))
    assert "…" not in shown


@pytest.mark.parametrize("metric", [["S", "efficacy_score"], "S,efficacy_score"])
def test_the_picture_shows_the_lines_of_each_metric(tmp_path, metric):
    out = run_compare(batches(tmp_path), tmp_path, metric=metric)
    image = Image.open(out / "comparison.png").convert("RGB")
    assert image.width == 2 * 990
    assert image.height > 400
    counts = {color: count for count, color in image.getcolors(1 << 20)}
    for color in COLORS[:2]:
        assert counts.get(tuple(bytes.fromhex(color[1:])), 0) > 200
    assert counts.get(tuple(bytes.fromhex(COLORS[2][1:])), 0) == 0


def test_the_figure_draws_the_points_in_their_unit_with_their_errors(tmp_path):
    runs, _ = read_runs(batches(tmp_path))
    figure = draw(lines_of(runs, "batch_size"), ["efficacy_score"], "batch_size")
    [axes] = figure.axes
    assert [text.get_text() for text in axes.texts] == ["EMMET", "MEMIT"]
    assert not figure.legends
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("efficacy score (%)", "batch size (edits per update)")
    assert axes.get_xscale() == "log"
    assert list(axes.get_xticks()) == [1, 16, 64]
    first = axes.containers[0]
    assert first[0].get_xydata().tolist() == [[1, 100], [16, 100], [64, 100]]
    bars = first[2][0].get_segments()
    assert bars[0].tolist() == [[1, 99], [1, 101]]


def test_an_axis_is_logarithmic_only_beyond_a_decade_and_keeps_zero(tmp_path):
    for sizes, scale in (((10, 100), "linear"), ((10, 101), "symlog")):
        runs, _ = read_runs(batches(tmp_path / str(sizes), sizes))
        [axes] = draw(lines_of(runs, "edits"), ["S"], "edits").axes
        assert axes.get_xscale() == scale
        assert 0 in axes.get_xticks()


def test_tensorboard_has_the_figure_and_scalars_of_the_last_comparison(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folders = batches(tmp_path)
    run_compare(folders[:3], tmp_path, x="batch_size")
    out = run_compare(folders, tmp_path, x="batch_size")
    assert len(list((out / "comparison").iterdir())) == 1
    events = EventAccumulator(str(out / "comparison")).Reload()
    assert events.Tags()["images"] == ["comparison"]
    points = {event.step: event.value for event in events.Scalars("S/MEMIT")}
    assert points == {n: pytest.approx(1 / (1 + n / 200)) for n in (1, 16, 64)}


def test_an_earlier_comparison_is_replaced_and_foreign_files_stay(tmp_path):
    folders = batches(tmp_path)
    (tmp_path / "out" / "comparison").mkdir(parents=True)
    (tmp_path / "out" / "comparison" / "mine").write_text("stays")
    with pytest.raises(EditError, match=r"comparison\.png is there already, and holds something else"):
        (tmp_path / "out" / "comparison.png").write_text("mine")
        run_compare(folders, tmp_path)
    (tmp_path / "out" / "comparison.png").unlink()
    for _ in range(2):
        out = run_compare(folders, tmp_path)
    assert (out / "comparison" / "mine").read_text() == "stays"
    Image.open(out / "comparison.png").verify()


def test_runs_at_one_batch_size_are_ranked_by_name(tmp_path):
    runs, _ = read_runs(batches(tmp_path, sizes=(16,)))
    lines = lines_of(runs, "batch_size")
    expected = pytest.approx([100 / (1 + 16 / 100), 100 / (1 + 16 / 200)])
    [axes] = draw(lines, ["S"], "batch_size").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [line.label for line in lines]
    assert [bar.get_width() for bar in axes.patches] == expected
    assert axes.get_xlim() == (0, 100)
    [axes] = draw(lines, ["S"], "batch_size", zoom=True).axes
    assert [container.lines[0].get_xdata()[0] for container in axes.containers] == expected
    assert axes.get_xlim()[0] > 50
