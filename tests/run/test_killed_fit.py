"""A fit that was killed is a fit that is not finished, whichever command looks at it."""

import json
import re
import shutil

import pytest

from lightning_edit import EditError
from lightning_edit.cli import main as cli
from lightning_edit.commands.comparison.runs import read_runs
from tests.killing import Command
from tests.run_folders import write
from tests.shared_runs import SMALL


def refused(capsys, *words):
    with pytest.raises(SystemExit):
        cli.main(list(map(str, words)))
    return " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    settings = SMALL | {"trainer.logger.save_dir": folder, "model.second_moment.cache_dir": folder / "cache"}
    args = ["fit", *(f"--{name}={value}" for name, value in settings.items())]
    command = Command(args, folder / "log", kill="update file:2:after")
    assert command.wait() == [-9], command.output
    return folder / "version_0"


@pytest.mark.parametrize("written", ["fit", "test"])
def test_it_is_said_that_it_is_not_finished_and_what_resumes_it(written, killed, tmp_path, capsys):
    run = shutil.copytree(killed, tmp_path / "runs" / "version_0")
    metrics = run / "metrics.json"
    content = json.loads(metrics.read_text())
    assert (content["command"], content["after"]) == ("fit", None)
    # Earlier versions noted the measurement before a fit as a test's.
    metrics.write_text(json.dumps({**content, "command": written}))
    resumes = f"lightning-edit fit --ckpt_path {run}"
    for words in (["report", run], ["ask", run, "--once", "Who?"], ["compare", run]):
        said = refused(capsys, *words)
        assert resumes in said, words
        assert "measured of another run" not in said
    assert "is not finished" in refused(capsys, "ask", run, "--once", "Who?")
    write(tmp_path / "runs" / "other")
    _, notes = read_runs([tmp_path / "runs"])
    assert notes == [f"{run} was not finished (`{resumes}` resumes it) and is left out."]


def test_a_test_is_still_told_from_a_fit(tmp_path):
    write(tmp_path / "runs" / "fit")
    file = write(tmp_path / "runs" / "measured") / "metrics.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "command": "test"}))
    runs, notes = read_runs([tmp_path / "runs"])
    assert [run.folder.name for run in runs] == ["fit"]
    assert "holds what `test` measured" in notes[0]
    (tmp_path / "runs" / "measured" / "metrics.json").write_text(json.dumps({"command": "fit", "after": None}))
    with pytest.raises(EditError, match=re.escape("Wait for the end of the run, or leave it out")):
        read_runs([tmp_path / "runs" / "measured"])
