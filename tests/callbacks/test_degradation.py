"""A degrading model: when a run is warned, when it is stopped, and what cannot be measured."""

import json

import pytest
import torch

from lightning_edit import EMMET, EditError
from lightning_edit.callbacks import Watch
from lightning_edit.datamodules import TinyWorld
from lightning_edit.metrics.perplexity import perplexity
from lightning_edit.run.edit_callback import EditCallback
from tests.trainers import quiet_trainer
from tests.watched_runs import between, module, rows, run, write_text


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    return run(folder, Watch()), rows(folder)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


class Noted(EditCallback):
    """Notes the weight whenever an update is kept."""

    def __init__(self):
        self.weights = []

    def on_update_kept(self, trainer, pl_module):
        self.weights.append(pl_module.decoder.weight(0).clone())


@pytest.mark.slow
def test_growth_is_warned_of_once(tmp_path, watched):
    limit = between(watched[1])
    with pytest.warns(UserWarning) as told:
        made = run(tmp_path, Watch(max_growth=limit))
    (message,) = [str(entry.message) for entry in told if "may be degrading" in str(entry.message)]
    growth = float(watched[1][1]["layer_0/weight_growth"])
    assert message.startswith(
        f"The model may be degrading: after 4 edits the weight of layer 0 is {growth:.3g} times as"
    )
    assert "`watch.max_growth`" in message
    assert "`watch.on_degradation: stop`" in message
    assert made.loop.edits_written == 6


def test_a_run_that_is_stopped_keeps_the_model_from_before(tmp_path, watched):
    noted = Noted()
    with pytest.warns(UserWarning, match="the run ends with the model from before it"):
        made = run(tmp_path, Watch(max_growth=between(watched[1]), on_degradation="stop"), noted)
    assert made.loop.edits_written == 2
    assert made.loop.stopped.startswith("after 4 edits the weight of layer 0 is")
    assert torch.equal(made.decoder.weight(0), noted.weights[0])
    assert len(noted.weights) == 1
    assert [row["edits"] for row in rows(tmp_path)] == ["2"]


def test_perplexity_is_that_of_the_text(tmp_path, text):
    with pytest.warns(UserWarning, match=r"perplexity is .* times the unedited model's") as told:
        watch = Watch(perplexity_file=str(text), perplexity_windows=3, max_perplexity_factor=1.00001, max_growth=None)
        made = run(tmp_path, watch, solver=EMMET(1e-5, ridge=1e-4))
    size = made.decoder.context
    joined = text.read_text()
    ids = made.tokenizer(joined, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    beginning = joined[: ids[3 * size - 1][1]]
    with torch.no_grad():
        now = perplexity(made.decoder, made.tokenizer, [beginning])
        with made.weights.unedited():
            before = perplexity(made.decoder, made.tokenizer, [beginning])
    assert float(rows(tmp_path)[-1]["perplexity"]) == pytest.approx(now, rel=1e-3)
    (message,) = [str(entry.message) for entry in told if "may be degrading" in str(entry.message)]
    assert f"times the unedited model's {before:.4g}, more than `watch.max_perplexity_factor` 1.00001" in message


def test_text_may_be_json_lines(tmp_path, text):
    lines = tmp_path / "ordinary.jsonl"
    lines.write_text("".join(json.dumps({"text": line}) + "\n" for line in text.read_text().split("\n")))
    made = run(tmp_path)
    found = []
    for file in (text, lines):
        watch = Watch(perplexity_file=str(file), perplexity_windows=2)
        watch.setup(made.trainer, made, "fit")
        with torch.no_grad():
            found.append(watch.text.perplexity(made))
    assert found[0] == found[1]
    assert found[0][0] > 1


def test_a_broken_model_is_beyond_all_limits(tmp_path, watched):
    limits = Watch().limits
    nan = float("nan")
    assert set(limits.exceeded({"layer_0/weight_growth": 1.5, "layer_1/weight_growth": nan}, None)) == {"growth"}
    assert set(limits.exceeded({"perplexity": nan}, 10.0)) == {"perplexity"}
    assert set(limits.exceeded({"perplexity": float("inf"), "layer_0/weight_growth": 1.9}, 10.0)) == {"perplexity"}
    assert limits.exceeded({"perplexity": 19.9, "layer_0/weight_growth": 1.9}, 10.0) == {}
    assert Watch(max_growth=None, max_perplexity_factor=None).limits.exceeded({"layer_0/weight_growth": nan}, 1) == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every_n_updates": 0}, "`every_n_updates` must be a whole number of 1 or more or null, got 0"),
        ({"sample": 0}, "`sample` must be a whole number of 1 or more or null, got 0"),
        ({"max_growth": 1.0}, "`max_growth` must be a number above 1 or null, got 1.0"),
        ({"max_perplexity_factor": 0.5}, "`max_perplexity_factor` must be a number above 1"),
        ({"on_degradation": "halt"}, "`on_degradation` must be warn or stop, got 'halt'"),
        ({"perplexity_file": "absent.txt"}, "`perplexity_file`: there is no file absent.txt"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(EditError, match=message):
        Watch(**settings)


def test_too_little_text_is_refused_before_editing(tmp_path):
    (tmp_path / "short.txt").write_text("Anna lives in Rome.\n")
    made = module()
    with pytest.raises(EditError, match=r"`perplexity_file`: .*short\.txt has text for .*`watch\.perplexity_windows`"):
        quiet_trainer(tmp_path, Watch(perplexity_file=str(tmp_path / "short.txt"))).fit(
            made, datamodule=TinyWorld(edits=2)
        )
    assert made.loop.editor is None
    # Nor is anything measured before: the command line begins with a test.
    with pytest.raises(EditError, match=r"short\.txt has text for"):
        quiet_trainer(tmp_path, Watch(perplexity_file=str(tmp_path / "short.txt"))).test(
            made, datamodule=TinyWorld(edits=2), verbose=False
        )
    assert made.results == {}
    with pytest.raises(EditError, match="`perplexity_windows` must be a whole number of 1 or more, got 0"):
        Watch(perplexity_file=str(tmp_path / "short.txt"), perplexity_windows=0)
