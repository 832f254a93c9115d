import json

import pytest
import yaml

from lightning_edit import EditError
from lightning_edit.callbacks import Downstream, Harness, Retention, Watch
from lightning_edit.cli import main as cli
from tests.shared_runs import command

GIVEN = {
    "a sample of no retention": (Retention, {"sample": 5}, "`retention.sample` has no effect"),
    "rows of no task": (Downstream, {"tests": 7, "shots": 1}, "`downstream.shots`, `downstream.tests` have no effect"),
    "rows of no harness task": (Harness, {"limit": 3}, "`harness.limit` has no effect"),
    "windows of no text": (Watch, {"perplexity_windows": 50}, "`watch.perplexity_windows` has no effect"),
    "a limit of no text": (Watch, {"max_perplexity_factor": 1.5}, "`watch.max_perplexity_factor` has no effect"),
}


@pytest.mark.parametrize(("callback", "given", "said"), GIVEN.values(), ids=GIVEN)
def test_settings_of_what_is_not_measured_are_refused(callback, given, said):
    with pytest.raises(EditError, match=said):
        callback(**given)


IDLE = {
    "evaluation.top_k=3": "`evaluation.top_k` has no effect with `evaluation.generate: false`. Set",
    "evaluation.seed=3": "`evaluation.seed` has no effect",
    "evaluation.max_length=30": "`evaluation.max_length` has no effect",
    "evaluation.texts_per_prompt=2": "`evaluation.texts_per_prompt` has no effect",
    "evaluation.match_paraphrases=1": "`evaluation.match_paraphrases` has no effect with `evaluation.generated_match",
    "evaluation.ripple_tokens=5": "`evaluation.ripple_tokens` has no effect with `evaluation.ripples: false`",
    "evaluation.wild_settings.unrelated=0": "`evaluation.wild_settings.unrelated` has no effect with `evaluation.wild",
    "evaluation.judge.reply_tokens=99": "`evaluation.judge.reply_tokens` has no effect with `evaluation.judge.model",
    "evaluation.judge.at_once=1": "`evaluation.judge.at_once` has no effect with `evaluation.judge.url: null`",
    "collateral.tokens=3": "`collateral.tokens` has no effect with `collateral.prompts: 0`",
    "collateral.every_n_updates=1": "`collateral.every_n_updates` has no effect",
    "downstream.every_n_updates=5": "`downstream.every_n_updates` has no effect with `downstream.tasks` empty",
    "harness.chat=auto": "`harness.chat` has no effect with `harness.tasks` empty",
    "harness.batch_size=1": "`harness.batch_size` has no effect",
    "watch.sample=5": "`watch.sample` has no effect with `watch.every_n_updates: null`",
    "watch.seed=5": "`watch.seed` has no effect",
}
OFF = {"model.evaluation.generated_match": "false", "model.evaluation.ripples": "false"}


@pytest.mark.parametrize("given", sorted(IDLE))
def test_settings_of_a_new_run_that_do_nothing_are_refused_before_it_begins(given, tmp_path, capsys):
    name, _, value = given.replace("evaluation", "model.evaluation", 1).partition("=")
    with pytest.raises(SystemExit):
        command(tmp_path, **OFF, **{name: value})
    assert IDLE[given] in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.yaml"))


def test_settings_that_do_something_are_taken_and_so_are_those_of_an_earlier_run(tmp_path):
    # What switches off what is off anyway is no mistake.
    given = {"harness.every_n_updates": "null", "model.evaluation.match_paraphrases": 0}
    given |= {"model.evaluation.match_tokens": 5, "watch.sample": 5, "watch.every_n_updates": 1}
    run = command(tmp_path, **OFF, **given, **{"model.evaluation.wild_settings.unrelated": 5})
    config = run / "config.yaml"
    content = yaml.safe_load(config.read_text())
    content["watch"]["every_n_updates"] = None
    content["model"]["init_args"]["evaluation"]["top_k"] = 3
    config.write_text(yaml.safe_dump(content))
    before = json.loads((run / "metrics.json").read_text())["after"]
    (run / "metrics.json").unlink()
    cli.main(["fit", "--ckpt_path", str(next(run.glob("checkpoints/update-*1.ckpt")))])
    # It went on with these settings, and ended with the same figures.
    assert json.loads((run / "metrics.json").read_text())["after"] == before
    cli.main(["test", "--config", str(measured(content, tmp_path)), "--ckpt_path", str(run / "edited.ckpt")])
    tested = [json.loads(path.read_text())["after"] for path in tmp_path.rglob("metrics.json") if path.parent != run]
    assert [figures["efficacy_score"] for figures in tested] == [before["efficacy_score"]]


def measured(content, folder):
    """The same settings for a test."""
    kept = {name: value for name, value in content.items() if name not in ("ckpt_path", "weights_only")}
    (folder / "test.yaml").write_text(yaml.safe_dump(kept))
    return folder / "test.yaml"


def test_a_limit_can_be_taken_off_where_nothing_is_measured():
    assert Watch(max_perplexity_factor=None, max_worse=None).limits.worse is None


def test_a_limit_on_answers_that_nobody_asks_for_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command(tmp_path, "--collateral.prompts=0", "--watch.max_worse=0.05", "--watch.on_degradation=stop")
    assert "`watch.max_worse` has no effect with `collateral.prompts: 0`" in capsys.readouterr().err
    assert not list(tmp_path.rglob("update-*"))
