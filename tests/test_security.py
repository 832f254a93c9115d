"""Each sentence of SECURITY.md has a test, and each of these tests is there."""

import importlib
import json
import re
from pathlib import Path

import pytest

from lightning_edit.datamodules import CounterFact, OwnEdits
from lightning_edit.errors import EditError

TRUST, FORM = "tests.commands.test_trust", "tests.storage.test_form"
TESTS = {
    "A checkpoint is read as tensors": ("tests.test_cli", "test_a_pickle_is_never_run"),
    "No class or function that a checkpoint names": (TRUST, "test_a_checkpoint_imports_nothing_that_it_names"),
    "A checkpoint does not decide where": (TRUST, "test_a_checkpoint_does_not_say_where_this_machine_keeps_things"),
    "The `config.yaml` beside a checkpoint": (
        TRUST,
        "test_the_configuration_beside_a_checkpoint_runs_nothing_and_writes_nowhere_else",
    ),
    "A checkpoint whose content": (FORM, "test_a_checkpoint_of_the_wrong_form_is_found"),
    "An update whose content": (FORM, "test_an_update_of_the_wrong_form_is_found"),
    "Weights of a checkpoint": (FORM, "test_what_is_no_number_is_found_in_edited_weights"),
    "A changed byte": ("tests.updates.test_model_update", "test_every_flipped_bit_of_a_file_is_found"),
    "Code that comes with a model": ("tests.loading.test_remote_code", "test_code_is_run_only_if_asked_for"),
    "Links among a run's own files": ("tests.storage.test_links", "test_a_run_with_a_link_does_not_go_on"),
    "Files of data are read": ("tests.test_security", "test_a_script_beside_data_is_never_run"),
}
PAGE = Path(__file__).parents[1] / "SECURITY.md"


def test_every_sentence_has_a_test():
    claims = [" ".join(claim.split()) for claim in re.findall(r"^- (.*?)(?=^- |\n\n)", PAGE.read_text(), re.M | re.S)]
    assert len(claims) == len(TESTS)
    for claim, beginning in zip(claims, TESTS, strict=True):
        assert claim.startswith(beginning)


@pytest.mark.parametrize(("module", "name"), TESTS.values(), ids=[name for _, name in TESTS.values()])
def test_the_test_is_there(module, name):
    tests = [found for found in vars(importlib.import_module(module)) if found.startswith("test_")]
    assert any(found.startswith(name) for found in tests)


@pytest.mark.parametrize("kind", [CounterFact, OwnEdits])
@pytest.mark.parametrize("name", ["edits.py", "{folder}.py", "dataset_infos.py"])
def test_a_script_beside_data_is_never_run(kind, name, tmp_path):
    folder, trace = tmp_path / "edits", tmp_path / "ran"
    folder.mkdir()
    (folder / name.format(folder=folder.name)).write_text(f"open({str(trace)!r}, 'w')\n")
    (folder / "edits.json").write_text(json.dumps([{"subject": "a", "prompt": "{} b", "target_new": "c"}]))
    for path in (folder, folder / name.format(folder=folder.name)):
        try:
            kind(path=str(path)).setup("fit")
        except (EditError, RuntimeError) as error:  # the latter is the datasets library's
            assert str(error)
    assert not trace.exists()
