"""The command `ask`: both answers side by side, in the chat of the run, also for scripts."""

import io
import json
import shutil
from dataclasses import asdict

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoTokenizer

from lightning_edit import (
    EMMET,
    ChatSettings,
    ContextTemplates,
    EditError,
    EditRequest,
    ModelUpdate,
    SecondMomentSettings,
    ValueSettings,
    edit,
)
from lightning_edit.cli import main as cli
from lightning_edit.loading.pretrained import load_model
from lightning_edit.models.decoder import find_decoder
from lightning_edit.tiny import MODEL_PATH, World

CHAT = "{% for m in messages %}{{ (' ' if m['role'] == 'assistant' else '') + m['content'] }}{% endfor %}"
FACT = World.generate().records(1, seed=0)[0]
QUESTION = FACT["prompt"].replace("{}", FACT["subject"])


def asked(capsys, *words):
    cli.main(["ask", *map(str, words)])
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def chat_run(tmp_path_factory):
    """A run of one edit of the embedded model with a chat template: a turn follows the other, with a space between."""
    folder = tmp_path_factory.mktemp("chat")
    shutil.copytree(MODEL_PATH, folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder / "model")
    edits = folder / "edits.json"
    fact = {name: FACT[name] for name in ("subject", "prompt", "target_new")} | {"question": FACT["prompt"]}
    edits.write_text(json.dumps([fact]))
    own = {"data.path": edits, "model.model": folder / "model", "model.values.steps": 20}
    arguments = ["--data=OwnEdits", *(f"--{name}={value}" for name, value in own.items())]
    cli.main(
        [
            *("fit", *arguments, "--model.second_moment.tokens=2000", "--model.solver.ridge=0.01"),
            "--collateral.prompts=0",
            *(f"--trainer.logger.save_dir={folder}", f"--model.second_moment.cache_dir={folder / 'cache'}"),
            "--model.evaluation.systems=[Well. ]",
            # The embedded model has answered no question in a sentence.
            "--model.chat_settings.answers=words",
        ]
    )
    return folder / "version_0"


@pytest.mark.slow
def test_a_script_gets_both_answers(chat_run, capsys):
    answer = json.loads(asked(capsys, chat_run, "--once", QUESTION, "--json", "--tokens", 3))
    assert answer["question"] == QUESTION
    assert FACT["target_true"] in answer["before"]
    assert FACT["target_new"] in answer["after"]


def test_several_questions_are_one_conversation_until_the_context_is_full(chat_run, capsys):
    with pytest.raises(SystemExit):
        asked(capsys, chat_run, *[f"--once={QUESTION}"] * 40, "--json", "--tokens=3")
    out, err = capsys.readouterr()
    assert 1 < len(out.splitlines()) < 40
    assert "The conversation up to" in err


def test_python_edits_a_chat_model_as_a_run_does_and_can_be_asked(chat_run, capsys):
    folder = chat_run.parent
    model, tokenizer = load_model(str(folder / "model")), AutoTokenizer.from_pretrained(folder / "model")
    fact = EditRequest(FACT["subject"], FACT["prompt"], FACT["target_new"], question=FACT["prompt"])
    found = SecondMomentSettings(tokens=2000, cache_dir=str(folder / "cache"))
    how = {"values": ValueSettings(steps=20), "second_moment": found, "progress": False}
    how |= {"chat_settings": ChatSettings(answers="words")}
    result = edit(model, tokenizer, [fact], EMMET(ridge=0.01), **how)
    for layer, update in ModelUpdate.load(chat_run / "update.safetensors").layers.items():
        torch.testing.assert_close(result.layers[layer].factors.dense(), update.factors.dense())

    said = json.loads(asked(capsys, chat_run, "--once", QUESTION, "--json", "--tokens", 3))
    answers = result.ask(QUESTION, tokens=3)
    assert asdict(answers) == said
    lines = repr(answers).splitlines()
    assert lines[0].strip() == QUESTION
    assert any(said["before"] in line and said["after"] in line for line in lines)

    edited = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert result.ask(QUESTION, tokens=3) == answers
    assert all(torch.equal(edited[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(EditError, match="`tokens` must be"):
        result.ask(QUESTION, tokens=0)
    with pytest.raises(EditError, match="must be a text that is not empty"):
        result.ask(" ")
    result.remove(model)
    assert result.ask(QUESTION, tokens=3) == answers
    assert not result.is_inserted


def test_where_a_chat_edit_is_to_hold_is_a_setting_in_python_too(chat_run):
    folder = chat_run.parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    fact = EditRequest(FACT["subject"], FACT["prompt"], FACT["target_new"])

    def delta(tokens, **options):
        model = load_model(str(folder))
        moments = {0: torch.eye(find_decoder(model).weight(0).shape[1], dtype=torch.float64)}
        how = {"moments": moments, "templates": ContextTemplates(), "values": ValueSettings(steps=2), "progress": False}
        return edit(model, tokens, [fact], EMMET(), [0], **how, **options).layers[0].factors.dense()

    both, chat = delta(tokenizer, chat_settings=ChatSettings(contexts=["chat", "plain"])), delta(tokenizer)
    plain = delta(tokenizer, chat=False)
    assert torch.equal(plain, delta(AutoTokenizer.from_pretrained(MODEL_PATH)))
    assert len({float(update.norm()) for update in (both, chat, plain)}) == 3


def test_the_run_was_in_a_chat_and_says_so(chat_run):
    config = json.loads((chat_run / "metrics.json").read_text())["config"]["model"]
    assert config["chat"] is True
    assert config["chat_settings"]["contexts"] == ["chat", "plain"]


def test_its_edit_is_measured_in_plain_text_and_under_other_system_prompts_too(chat_run):
    metrics = json.loads((chat_run / "metrics.json").read_text())
    for stage in ("before", "after"):
        assert {"efficacy_accuracy", "plain_efficacy_accuracy", "system_1_efficacy_accuracy"} <= set(metrics[stage])
    # Its template puts nothing around a question, so both worlds are one.
    assert metrics["after"]["plain_efficacy_accuracy"] == metrics["after"]["efficacy_accuracy"] == 1
    records = [json.loads(line) for line in (chat_run / "records.jsonl").read_text().splitlines()]
    assert all(len(record[way]["efficacy"]) == 1 for record in records for way in ("plain", "system_1"))
    tags = EventAccumulator(str(chat_run)).Reload().Tags()["scalars"]
    assert {"edit/plain_efficacy_accuracy", "edit/system_1_efficacy_accuracy"} <= set(tags)


def test_questions_are_read_line_by_line_with_history(chat_run, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTION}\n\n/new\n{QUESTION}\n/quit\nnever\n"))
    shown = asked(capsys, chat_run, "--tokens", 3)
    assert shown.count(FACT["target_new"]) == 2
    assert "before" in shown
    assert "never" not in shown


@pytest.mark.slow
def test_a_plain_run_continues_prompts(finished, capsys):
    answer = json.loads(asked(capsys, finished, "--once", "Anna", "--json", "--tokens", 4))
    assert set(answer) == {"question", "before", "after"}


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: folder.rmdir(), "there is no folder"),
        (lambda folder: None, "holds no metrics.json"),
        (lambda folder: (folder / "metrics.json").write_text("[]"), "does not say which model"),
        (
            lambda folder: (folder / "metrics.json").write_text('{"config": {"model": {"model": "tiny"}}}'),
            "holds no update.safetensors",
        ),
    ],
)
def test_what_is_no_finished_run_is_refused_in_words(tmp_path, capsys, prepare, message):
    folder = tmp_path / "run"
    folder.mkdir()
    prepare(folder)
    with pytest.raises(SystemExit) as left:
        cli.main(["ask", str(folder), "--once", "Why?"])
    assert left.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_no_tokens_are_no_answer(finished, capsys):
    with pytest.raises(SystemExit):
        cli.main(["ask", str(finished), "--tokens", "0"])
    assert "`--tokens` must be a positive number" in capsys.readouterr().err
