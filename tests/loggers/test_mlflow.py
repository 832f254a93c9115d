"""MLflow with a store in a local database, beside TensorBoard and a CSV file."""

import csv
import json
from pathlib import Path

import pytest
from lightning.pytorch.loggers import MLFlowLogger

from lightning_edit.loggers import Table
from lightning_edit.loggers.given import adapter_of
from tests.shared_runs import SMALL, cli

pytest.importorskip("mlflow", reason="`make test-loggers` installs mlflow")
pytest.importorskip("sqlalchemy", reason="`make test-loggers` installs mlflow")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A sequential run with three loggers; its folder, MLflow's client, and the run there."""
    from mlflow.tracking import MlflowClient

    folder = tmp_path_factory.mktemp("mlflow")
    store = {"tracking_uri": f"sqlite:///{folder / 'mlflow.db'}", "artifact_location": str(folder / "artifacts")}
    loggers = [
        {"class_path": "TensorBoardLogger", "init_args": {"save_dir": str(folder), "name": None}},
        {"class_path": "MLFlowLogger", "init_args": {"experiment_name": "edits", **store}},
        {"class_path": "CSVLogger", "init_args": {"save_dir": str(folder / "csv"), "name": None}},
    ]
    (folder / "loggers.yaml").write_text(json.dumps({"trainer": {"logger": loggers}}))
    settings = SMALL | {"model.second_moment.cache_dir": folder / "cache"}
    cli.main(["fit", f"--config={folder / 'loggers.yaml'}", *(f"--{k}={v}" for k, v in settings.items())])
    client = MlflowClient(store["tracking_uri"])
    experiment = client.get_experiment_by_name("edits")
    (found,) = client.search_runs([experiment.experiment_id])
    return folder / "version_0", client, found


def kept(client, found, name, folder):
    """An artifact of the run."""
    return Path(client.download_artifacts(found.info.run_id, name, str(folder))).read_bytes()


def test_figures_and_settings_are_there(run):
    folder, client, found = run
    assert found.info.status == "FINISHED"
    after = json.loads((folder / "metrics.json").read_text())["after"]
    assert found.data.metrics["edit/efficacy_score"] == pytest.approx(after["efficacy_score"])
    steps = [one.step for one in client.get_metric_history(found.info.run_id, "layer_0/weight_growth")]
    assert steps == [2, 4, 6]
    params = found.data.params
    assert params["settings/method"] == "EMMET" and params["settings/edits"] == "6.0"
    assert params["edits_per_update"] == "2" and params["values/steps"] == "3"


def test_the_examples_are_a_table_and_the_report_an_artifact(run, tmp_path):
    folder, client, found = run
    table = json.loads(kept(client, found, "answers/edits.json", tmp_path))
    assert table["columns"][:4] == ["prompt", "new answer", "before", "after"] and len(table["data"]) == 6
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    assert {row[1] for row in table["data"]} == {record["target_new"] for record in records}
    page = kept(client, found, "report.html", tmp_path)
    assert page == (folder / "report.html").read_bytes() and b"</html>" in page
    assert {one.path for one in client.list_artifacts(found.info.run_id, "run")} >= {"run/figure.png"}
    assert b"6 changed facts" in kept(client, found, "overview.md", tmp_path)


def test_the_other_loggers_have_their_own(run):
    folder = run[0]
    assert list(folder.glob("events.out.tfevents.*"))
    with (folder.parent / "csv" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["layer_0/weight_growth"]] == ["2", "4", "6"]
    noted = json.loads((folder / "loggers.json").read_text())
    assert noted == {"MLFlowLogger": run[2].info.run_id}


def test_a_table_given_again_is_kept_beside_the_first(run):
    _, client, found = run
    logger = MLFlowLogger("edits", tracking_uri=client.tracking_uri, run_id=found.info.run_id)
    for text in ("one", "two"):
        adapter_of(logger).table(Table("answers/again", "Title", ("a",), ((text,),)), 6)
    names = [one.path for one in client.list_artifacts(found.info.run_id, "answers")]
    assert names == ["answers/again-2.json", "answers/again.json", "answers/edits.json"]
