"""What the README promises of the embedded models and of the function for people without a trainer."""

import doctest
import json
import warnings

import pytest

from lightning_edit.api import editing, within
from lightning_edit.cli import main as cli
from lightning_edit.configs import CONFIGS

pytestmark = pytest.mark.slow
# What each embedded model is edited with, and its figures: efficacy, paraphrase, and what neighbors may lose.
RUNS = {
    "tiny": (["--config", str(CONFIGS / "models" / "tiny.yaml")], 0.99, 0.98, 0.01),
    "tiny-moe": (["--config", str(CONFIGS / "models" / "tiny_moe.yaml")], 0.97, 0.90, 0.05),
}
# What the perplexity behind long contexts may be of that before.
LONG_CONTEXTS = {"tiny": 1.1, "tiny-moe": 1.05}


@pytest.fixture(scope="module", params=RUNS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def metrics(name, tmp_path_factory):
    """The figures of `make quickstart` or `make quickstart-moe`, from the real command line."""
    folder = tmp_path_factory.mktemp("quickstart")
    places = [f"--trainer.logger.save_dir={folder}", f"--model.second_moment.cache_dir={folder / 'cache'}"]
    # That the weight grows is reported, which is no fault here.
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        cli.main(["fit", *RUNS[name][0], *places])
    return json.loads((folder / "version_0" / "metrics.json").read_text())


def test_embedded_model_knows_its_world(name, metrics):
    assert metrics["config"]["model"]["model"] == name
    assert metrics["before"]["efficacy_score"] == 0
    assert metrics["before"]["neighborhood_accuracy"] >= 0.98


def test_edits_are_learned_in_every_wording_and_neighbors_kept(name, metrics):
    _, efficacy, paraphrase, lost = RUNS[name]
    assert metrics["edits"] >= 50
    assert metrics["after"]["efficacy_score"] >= efficacy
    assert metrics["after"]["paraphrase_score"] >= paraphrase
    assert metrics["after"]["neighborhood_score"] >= metrics["before"]["neighborhood_score"] - lost


def test_long_contexts_are_as_before(name, metrics):
    figures = metrics["collateral"]["figures"]
    # Without joined texts the embedded model has 38 times the perplexity there.
    assert figures["long_context_perplexity_ratio"] < LONG_CONTEXTS[name]


def test_example_of_edit_runs():
    for module in (editing, within):
        result = doctest.testmod(module)
        assert result.attempted > 5
        assert result.failed == 0
