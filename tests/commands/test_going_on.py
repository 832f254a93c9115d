"""A run that is stopped says with which command it goes on, and that command does."""

import re
import shlex

import pytest

from lightning_edit.cli import main as cli
from lightning_edit.run.module import EditingModule
from tests.commands.test_trust import RUN


def stop(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({"model.second_moment.cache_dir": "runs/cache", "model.values.cache_dir": "runs/v"}, []),
        ({"trainer.logger.name": "named", "model.values.cache_dir": "elsewhere"}, ["--trust_config"]),
        (
            {"model.second_moment.cache_dir": "runs/cache", "model.trust_remote_code": "true"},
            ["--model.trust_remote_code=true"],
        ),
    ],
    ids=str,
)
@pytest.mark.slow
def test_the_command_that_goes_on_has_the_flags_that_it_needs(changes, flags, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    settings = {**RUN, "model.second_moment.cache_dir": "cache", **changes}
    with monkeypatch.context() as patch:
        patch.setattr(EditingModule, "_find_values", stop)
        with pytest.raises(SystemExit):
            cli.main(["fit", *(f"--{name}={value}" for name, value in settings.items())])
    said = re.search(r"0 of 2 edits are kept\. To resume: (.*)", capfd.readouterr().err)
    assert said is not None
    command = shlex.split(said[1])
    assert command[3:] == flags
    cli.main(command)
    assert "Going on in" in capfd.readouterr().err
    assert len(list(tmp_path.rglob("metrics.json"))) == 1
