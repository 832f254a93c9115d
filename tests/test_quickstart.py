"""What the README promises of the embedded model and of the function for people without a trainer."""

import doctest
import json
import warnings

import pytest

from lightning_edit import api
from lightning_edit.cli import main as cli

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    """The figures of the default configuration, from the real command line."""
    folder = tmp_path_factory.mktemp("quickstart")
    # That the weight grows is reported, which is no fault here.
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        cli.main(["fit", f"--trainer.logger.save_dir={folder}", f"--model.second_moment.cache_dir={folder / 'cache'}"])
    return json.loads((folder / "version_0" / "metrics.json").read_text())


def test_embedded_model_knows_its_world(metrics):
    assert metrics["before"]["efficacy_score"] == 0
    assert metrics["before"]["neighborhood_accuracy"] >= 0.98


def test_edits_are_learned_in_every_wording_and_neighbors_kept(metrics):
    assert metrics["edits"] >= 50
    assert metrics["after"]["efficacy_score"] >= 0.99
    assert metrics["after"]["paraphrase_score"] >= 0.95
    assert metrics["after"]["neighborhood_score"] >= metrics["before"]["neighborhood_score"] - 0.03


def test_example_of_edit_runs():
    assert doctest.testmod(api).failed == 0
