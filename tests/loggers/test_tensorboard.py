"""What TensorBoard has to show of real runs, read by TensorBoard's own plugins."""

import html
import json
import re
import shutil

import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugin_util import markdown_to_safe_html
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

from lightning_edit.callbacks import EditReport, LogResults, RecordResults
from lightning_edit.configs import CONFIGS
from lightning_edit.datamodules import TinyWorld
from lightning_edit.errors import EditError
from lightning_edit.loggers import Table
from lightning_edit.loggers.pages import PAGES, layout_of
from lightning_edit.report.content import content_of
from lightning_edit.run.edit_callback import EditCallback
from lightning_edit.storage.checkpoints.checkpoint_file import checkpoints
from tests.shared_runs import cli, command, once
from tests.small_runs import fit, module
from tests.trainers import quiet_trainer

NAMES = ("single", "sequence")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with a single update and a sequence of three, in one folder."""

    def make(folder):
        # Lightning's own settings of this logger write an hp_metric of -1.
        plain = ("--trainer.logger=TensorBoardLogger", "--trainer.logger.name=null")
        command(folder, *plain, **{"model.edits_per_update": "null", "name": "single", "data.edits": 4})
        command(
            folder, **{"name": "sequence", "retention.every_n_updates": 1, "watch.every_n_updates": 1, "data.edits": 6}
        )

    return once(tmp_path_factory, "tensorboard_runs", make)


@pytest.fixture(scope="module")
def read(runs):
    """What TensorBoard reads of each run."""
    return {name: EventAccumulator(str(runs / name)).Reload() for name in NAMES}


@pytest.fixture(scope="module")
def board(runs):
    """What TensorBoard's plugins look at."""
    multiplexer = EventMultiplexer()
    for name in NAMES:
        multiplexer.AddRun(str(runs / name), name)
    return TBContext(data_provider=MultiplexerDataProvider(multiplexer.Reload(), "runs"), multiplexer=multiplexer)


def undescribed(events):
    known = events.summary_metadata
    return [tag for tag in events.Tags()["scalars"] if tag not in known or not known[tag].summary_description]


def text(read, run, tag):
    return read[run].Tensors(tag)[-1].tensor_proto.string_val[0].decode()


@pytest.mark.parametrize("run", NAMES)
def test_every_scalar_says_what_it_means(read, run):
    tags = read[run].Tags()["scalars"]
    assert len(tags) > 40 and "hp_metric" not in tags
    assert undescribed(read[run]) == []


@pytest.mark.slow
@pytest.mark.parametrize("method", ["crispedit", "ft", "grace", "in_context", "lora", "lyaplock", "memoir"])
def test_every_scalar_of_other_methods_says_what_it_means(method, tmp_path):
    settings = {"data.edits": 4, "trainer.logger.save_dir": tmp_path, "collateral.prompts": 0}
    cli.main(["fit", f"--config={CONFIGS / 'solvers' / method}.yaml", *(f"--{k}={v}" for k, v in settings.items())])
    events = EventAccumulator(str(tmp_path / "version_0")).Reload()
    assert events.Tags()["scalars"] and undescribed(events) == []


def test_four_pages_have_no_chart_without_figures(read, board):
    layout = CustomScalarsPlugin(board).layout_impl(RequestContext(), "runs")
    shown = {page["title"]: [chart["title"] for chart in page["chart"]] for page in json.loads(layout)["category"]}
    assert list(shown) == list(PAGES) and len(PAGES) == 4
    for charts in shown.values():
        assert charts and len(charts) == len(set(charts))
    # What only a sequence has is not on the pages of a single update.
    of_sequence = {"Edits of earlier updates (shares)", "All edits so far (shares)"}
    assert of_sequence <= set(shown["2. Retention"])
    for run in NAMES:
        figures = read[run].Tags()["scalars"]
        latest = read[run].Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0]
        assert latest == layout_of(figures).SerializeToString(deterministic=True)
        for page in layout_of(figures).category:
            for chart in page.chart:
                assert any(re.match(chart.multiline.tag[0], tag) for tag in figures), chart.title
    single = {chart.title for page in layout_of(read["single"].Tags()["scalars"]).category for chart in page.chart}
    assert not of_sequence & single and "Growth: norm over the norm before editing" in single


def test_every_figure_is_on_a_page_or_beside_one_that_is(read):
    """No room of figures is forgotten, only variants of what is shown."""
    figures = {tag for run in NAMES for tag in read[run].Tags()["scalars"]}
    patterns = [pattern for charts in PAGES.values() for pattern in charts.values()]
    left = {tag for tag in figures if not any(re.fullmatch(pattern, tag) for pattern in patterns)}
    assert {tag.split("/")[0] for tag in left} <= {"edit", "retention"}


def test_runs_are_compared_by_settings_and_figures(read, board):
    context, request = backend_context.Context(board), RequestContext()
    wanted = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=10, allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_UNKNOWN]
    )
    found = context.experiment_from_metadata(
        request,
        "runs",
        True,
        context.hparams_metadata(request, "runs"),
        context.hparams_from_data_provider(request, "runs", 0),
    )
    wanted.col_params.extend(api_pb2.ColParams(metric=metric.name) for metric in found.metric_infos)
    groups = list_session_groups.Handler(request, context, "runs", wanted).run().session_groups
    assert len(groups) == 2
    rows = {group.name: (dict(group.hparams.items()), group.metric_values) for group in groups}
    settings = {name: row[0] for name, row in rows.items()}
    assert {name: row["edits"].number_value for name, row in settings.items()} == {"single": 4, "sequence": 6}
    assert {name: row["edits_per_update"].number_value for name, row in settings.items()} == {
        "single": 4,
        "sequence": 2,
    }
    assert all(row["method"].string_value == "EMMET" for row in settings.values())
    assert all(row["model.solver.ridge"].number_value == 0.01 for row in settings.values())
    assert all(
        not row["model.chat"].bool_value and row["model.chat"].HasField("bool_value") for row in settings.values()
    )
    for name, (_, values) in rows.items():
        figures = {value.name.tag: value.value for value in values}
        assert {"edit/S", "edit/efficacy_score", "layer_0/weight_growth"} <= figures.keys()
        assert figures["edit/S"] == read[name].Scalars("edit/S")[-1].value
        assert "hp_metric" not in figures
    assert any(metric.description for metric in found.metric_infos)


@pytest.mark.parametrize("run", NAMES)
def test_edits_are_shown_with_their_answers(runs, read, run):
    records = [json.loads(line) for line in (runs / run / "records.jsonl").read_text().splitlines()]
    page = markdown_to_safe_html(text(read, run, "answers/edits"))
    for record in records:
        if record["stage"] == "after":
            assert record["prompt"].replace("{}", record["subject"]) in page
            assert record["target_new"] in page
    rows = re.findall("<tr>(.*?)</tr>", page, re.DOTALL)[1:]
    said = [re.findall("<td[^>]*>(.*?)</td>", row)[4] for row in rows]
    assert said == sorted(said) and len(said) == sum(record["stage"] == "after" for record in records)
    overview = text(read, run, "overview")
    assert "changed facts in tiny" in overview and "EMMET" in overview


def test_failures_come_first_and_many_edits_are_cut(runs, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(runs / "sequence", folder)
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    after = [line for line in lines if line["stage"] == "after"]
    for number, line in enumerate(after):
        line["generated_match"] = number not in (2, 4)
    (folder / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = content_of(folder, 3, [], None).tables[0]
    prompts = [line["prompt"].replace("{}", line["subject"]) for line in after]
    assert [row[0] for row in table.rows] == [prompts[2], prompts[4], prompts[0]]
    assert [row[4] for row in table.rows] == ["no", "no", "yes"]
    assert table.note == "3 of 6, failures first: 2 of 6 edits failed."


def test_a_table_shows_any_text_as_it_is():
    hostile = "a | b `c` *d* <script>alert(1)</script>\n# e [f](http://g) &amp; $h$"
    page = markdown_to_safe_html(Table("t", "Title", ("x", "y"), ((hostile, "z"),)).markdown())
    cells = re.findall("<td[^>]*>(.*?)</td>", page, re.DOTALL)
    assert len(cells) == 2 and "<" not in cells[0] and "href" not in page
    assert html.unescape(cells[0]) == " ".join(hostile.split())


def test_pictures_of_the_run(read):
    assert set(read["single"].Tags()["images"]) == {"run/before_and_after", "run/figure"}
    assert {"run/answers", "run/size_of_the_edited_weights", "run/figure"} <= set(read["sequence"].Tags()["images"])
    for run in NAMES:
        for tag in read[run].Tags()["images"]:
            image = read[run].Images(tag)[-1]
            assert image.encoded_image_string.startswith(b"\x89PNG") and image.width > 400 and image.height > 200


def test_results_come_after_what_they_are_read_from(tmp_path):
    with pytest.raises(EditError, match=r"LogResults shows what EditReport has written. Put EditReport before it"):
        quiet_trainer(tmp_path, LogResults()).fit(module(), datamodule=None)


class PowerCut(EditCallback):
    """Ends a run after its last update, before it is measured."""

    def on_edits_done(self, trainer, pl_module):
        raise RuntimeError("power cut")


def test_a_run_that_goes_on_keeps_its_pages(tmp_path):
    def callbacks():
        return EditReport(table=False), RecordResults(), LogResults()

    data = TinyWorld(edits=4)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(tmp_path, module(), data, *callbacks(), PowerCut())
    (last,) = checkpoints(tmp_path / "version_0")[:1]
    made = module()
    folder = fit(tmp_path, made, data, *callbacks(), ckpt_path=last, logger=TensorBoardLogger(tmp_path, None, 0))
    made.trainer.test(made, datamodule=data, verbose=False)
    events = EventAccumulator(str(folder)).Reload()
    latest = events.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0]
    shown = [page.title for page in Layout.FromString(latest).category]
    assert {"1. Edits", "3. Weight health", "4. Speed"} <= set(shown)
    assert latest == layout_of(events.Tags()["scalars"]).SerializeToString(deterministic=True)
