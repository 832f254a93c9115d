"""WILD's protocol in whole runs: fit, resume, test, compare, in plain text and in a chat."""

import json

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_edit.cli import main as cli
from lightning_edit.storage.checkpoints.checkpoint_file import checkpoints
from lightning_edit.tiny import MODEL_PATH
from tests.judges import served
from tests.shared_runs import command

KEY = "sk-very-secret-0123456789"
FIGURES = [f"wild_{how}_{measure}" for how in ("exact", "judged") for measure in ("reliability", "generalization")]
FIGURES += ["wild_exact_locality", "wild_judged_locality"]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MARKER_KEY", KEY)


def wild(folder, url=None, **settings):
    settings = {"wild": "true", "wild_settings.new_tokens": 8, "wild_settings.unrelated": 2, **settings}
    if url is not None:
        judge = {
            "model": "marker",
            "url": url,
            "key_variable": "MARKER_KEY",
            "wait": 0.01,
            "cache_dir": folder / "judge",
        }
        settings |= {f"judge.{name}": value for name, value in judge.items()}
    return {f"model.evaluation.{name}": value for name, value in settings.items()}


def read(run):
    return json.loads((run / "metrics.json").read_text())


def test_a_run_is_judged_resumed_and_compared(tmp_path, capsys):
    with served() as server:
        run = command(tmp_path, **wild(tmp_path, server.url))
        shown, whole = capsys.readouterr().out, read(run)
        assert "judged" in shown and "wild, before: " in shown and "wild, after: " in shown
        for stage in ("before", "after"):
            assert set(FIGURES) <= whole[stage].keys()
            marked = whole["wild"][stage]
            # A prompt, two paraphrases and two others for each of six edits.
            assert marked["answers"] == marked["judged"] + marked["by_rule"] == 6 * (1 + 2 + 2)
        assert whole["before"]["wild_exact_locality"] == 1 and whole["before"]["wild_exact_reliability"] == 0
        protocol = whole["wild"]["protocol"]
        assert protocol["input"] == "bare" and protocol["new_tokens"] == 8 and protocol["stop"] == [".", "\n"]
        assert protocol["judge"]["model"] == "marker" and "{gold}" in protocol["judge"]["prompt"]
        lines = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
        entry = lines[-1]["wild"]["reliability"][0]
        assert entry.keys() == {"prompt", "text", "gold", "exact", "judged", "by"}
        # The key went to the server, and into no file.
        assert server.seen and all(one["headers"]["Authorization"] == f"Bearer {KEY}" for one in server.seen)
        for file in tmp_path.rglob("*"):
            assert not file.is_file() or KEY.encode() not in file.read_bytes(), file
        # The last update again: what was measured before it, and how, is still there.
        checkpoints(run)[0].unlink()
        words = ["fit", "--ckpt_path", "last", "--trainer.logger.save_dir", str(tmp_path)]
        with pytest.raises(SystemExit):
            cli.main(words)
        assert "a judge would be sent answers" in capsys.readouterr().err.replace("\n", " ")
        cli.main([*words, "--trust_config"])
        resumed = read(run)
        for part in ("before", "after"):
            assert resumed[part] == whole[part]
        assert resumed["wild"]["before"] == whole["wild"]["before"]
        again, first = resumed["wild"]["after"], whole["wild"]["after"]
        # All answers are known by now.
        assert again["from_cache"] == again["judged"] == first["judged"]
    cli.main(["compare", str(run), "--output", str(tmp_path / "out.png"), "--metric", "wild_judged_reliability"])
    assert "judged" in capsys.readouterr().out


@pytest.mark.parametrize("given", ["sk-abcdefSECRET123", "ABCDEFSECRET123"])
def test_a_key_in_place_of_its_variable_is_neither_written_nor_shown(given, tmp_path, capfd):
    judge = {"model": "marker", "url": "http://127.0.0.1:9/v1", "key_variable": given}
    with pytest.raises(SystemExit):
        command(tmp_path, **wild(tmp_path, **{f"judge.{name}": value for name, value in judge.items()}))
    shown = "".join(capfd.readouterr())
    assert "`evaluation.judge.key_variable`" in shown and "SECRET" not in shown
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_checkpoint_is_measured_in_another_way_than_its_run(tmp_path, caplog, capsys):
    run = command(tmp_path, **wild(tmp_path), **{"data.edits": 2})
    before = read(run)["before"]
    assert "wild_exact_reliability" in before
    same = {"wild_settings.stop": r'[".", "\n"]'}
    for settings, kept in (({}, True), (same, True), ({"wild_settings.input": "qa_inst"}, False)):
        words = [f"--{name}={value}" for name, value in wild(tmp_path, **settings).items()]
        cli.main(
            ["test", "--ckpt_path", str(run / "edited.ckpt"), f"--trainer.logger.save_dir={tmp_path / 't'}", *words]
        )
        measured = read(sorted((tmp_path / "t").iterdir())[-1])
        assert ("wild_exact_reliability" in measured["before"]) is kept
        marked = measured["wild"]["after"]
        assert ("before" in measured["wild"]) is kept and marked["answers"] + marked["left_out"] == 2 * 5
        # The unedited model has nothing to say to some questions, and the run says so.
        assert ("left out of locality" in capsys.readouterr().out) is bool(marked["left_out"]) is not kept
        assert ("measured in another way" in caplog.text) is not kept
        assert measured["before"]["efficacy_score"] == before["efficacy_score"]


def test_edits_of_a_chat_are_asked_in_the_chat(tmp_path):
    folder = tmp_path / "chat"
    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    AutoModelForCausalLM.from_pretrained(MODEL_PATH).save_pretrained(folder)
    changes = {"model.model": folder, "model.layers": "[0]", "data.edits": 2, **wild(tmp_path)}
    run = command(tmp_path, **changes)
    measured = read(run)
    assert measured["wild"]["protocol"]["input"] == "chat" and "plain_efficacy_score" in measured["after"]
    prompts = [json.loads(line)["wild"]["reliability"][0]["prompt"] for line in (run / "records.jsonl").open()]
    assert all(prompt.startswith("Complete: ") or prompt.endswith("?") for prompt in prompts)
