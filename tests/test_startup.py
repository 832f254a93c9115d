"""What a command imports before it answers: torch, Lightning and transformers take seconds; only a run needs them."""

import json
import subprocess
import sys

import pytest
import torch

from lightning_edit import solvers
from lightning_edit.commands.comparison.idle import SEARCHING, WITHOUT_MOMENTS, usual_solver
from lightning_edit.commands.comparison.settings import ONE_EDIT
from lightning_edit.gradients.gradient import Gradient
from lightning_edit.loop import sourced
from lightning_edit.storage.cache import Cache
from lightning_edit.windows.windows import Windows
from tests import histories, run_folders

HEAVY = {"torch", "lightning", "transformers", "datasets", "torchmetrics", "sklearn", "nltk"}
ASK = """
import json, sys
from lightning_edit.cli.main import main
try:
    main(sys.argv[1:])
finally:
    sys.stderr.write("\\n" + json.dumps(sorted(name for name in sys.modules if "." not in name)))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with updates, and a cache."""
    folder = tmp_path_factory.mktemp("startup")
    run_folders.write(folder / "run")
    histories.simple(folder / "run" / "updates")
    Cache(folder / "cache").write("values", "0" * 32, {"a": torch.ones(2)}, {"model": "tiny"})
    return folder


@pytest.mark.parametrize(
    ("args", "status", "shown"),
    [
        (["--help"], 0, "commands:"),
        (["--version"], 0, "lightning-edit "),
        (["nothing"], 2, "There is no command nothing"),
        (["edit", "--help"], 0, "--method"),
        (["edit", "tiny", "none.csv"], 2, "there is no file none.csv"),
        (["edit", "tiny", "run/metrics.json", "--dry-run"], 0, "lightning-edit fit "),
        (["fit", "--help"], 0, "--model.layers auto"),
        (["test", "--data", "OwnEdits", "-h"], 0, "--ckpt_path"),
        (["fit", "--model.nokey", "1"], 2, "Accepted by EditingModule: model, layers"),
        (["fit", "--model.values.steps", "many"], 2, "`model.values.steps` must be a number, got many"),
        (["fit", "--data", "NOPE"], 2, "Known classes: AKEW, CounterFact, "),
        (["fit", "--model.model", "./none"], 2, "there is no folder ./none"),
        (["edit", "./none", "run/metrics.json"], 2, "there is no folder ./none"),
        (["fit", "--config", "none.yaml"], 2, "there is no file none.yaml"),
        (["compare", "--help"], 0, "--metric"),
        (["compare", "run"], 0, "Written: comparison.png"),
        (["compare", "none"], 2, "there is no folder none"),
        (["report", "--help"], 0, "--output"),
        (["report", "run"], 0, "The report is in run/report.html"),
        (["report", "none"], 2, "there is no folder none"),
        (["export", "--help"], 0, "--max_error"),
        (["export", "none"], 2, "there is nothing at none"),
        (["export", "run", "--rank", "0"], 2, "`--rank` must be"),
        (["survive", "--help"], 0, "--variants"),
        (["survive", "none"], 2, "there is nothing at none"),
        (["survive", "run", "--variants", "pruned"], 2, "There is no variant 'pruned'"),
        (["survive", "run", "--weights", "2"], 2, "from 0 to 1"),
        (["trace", "--help"], 0, "--subject"),
        (["trace", "./none", "It is"], 2, "there is no folder ./none"),
        (["trace", "tiny", "It is"], 2, "`--subject` is missing"),
        (["tune", "--help"], 0, "--favor"),
        (["tune", "tiny", "--out", "preset.txt"], 2, "ends in .yaml"),
        (["updates", "list", "run"], 0, "kept"),
        (["updates", "show", "run", "2"], 0, "update 2"),
        (["updates", "list", "none"], 2, "There is no folder none"),
        (["cache", "list", "--folder", "cache"], 0, "1 file"),
        (["cache", "verify", "--folder", "cache"], 0, "1 sound"),
        (["cache", "clear", "--kind", "nothing"], 2, "second-moment"),
    ],
)
def test_a_command_that_runs_no_model_imports_none_of_what_runs_models(args, status, shown, folder):
    command = [sys.executable, "-c", ASK, *args]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert ended.returncode == status, ended.stderr
    assert shown in ended.stdout + ended.stderr
    assert not HEAVY & set(json.loads(ended.stderr.splitlines()[-1]))


def test_solvers_of_one_edit_are_known_without_asking_them():
    kinds = [getattr(solvers, name) for name in solvers.__all__]
    limited = {kind.__name__: kind.edits_per_update for kind in kinds if getattr(kind, "edits_per_update", None)}
    assert limited == dict.fromkeys(ONE_EDIT, 1)


def test_solvers_and_sources_of_older_runs_are_known_without_asking_them():
    kinds = [getattr(solvers, name) for name in solvers.__all__]
    assert {kind.__name__ for kind in kinds if not getattr(kind, "needs_second_moment", True)} == WITHOUT_MOMENTS
    assert {kind.__name__ for kind in (Gradient, Windows) if kind.searches} == SEARCHING
    for source in (None, Gradient(), Windows()):
        name = "null" if source is None else type(source).__name__
        assert usual_solver(name) == type(sourced.usual_solver(source)).__name__
