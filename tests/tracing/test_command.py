"""``lightning-edit trace``: the files it writes, what it says, and mistakes."""

import json

import pytest

from lightning_edit.cli import main as cli
from lightning_edit.loading.pretrained import load_model
from lightning_edit.models.decoder import find_decoder
from lightning_edit.tiny import World
from lightning_edit.tracing import trace as tracing
from lightning_edit.tracing.facts import Fact, public_facts
from lightning_edit.tracing.noise import embedding_std
from lightning_edit.tracing.settings import KINDS, TracingSettings

RECORDS = World.generate().records(5, seed=2)


@pytest.fixture(scope="module")
def decoder():
    return find_decoder(load_model("tiny"))


def run(*args):
    cli.main(["trace", "tiny", *map(str, args)])


def test_a_prompt_is_traced_into_a_figure_and_json(tmp_path, capsys, decoder, tiny_tokenizer):
    record = RECORDS[0]
    prompt = record["prompt"].replace("{}", record["subject"])
    run(prompt, "--subject", record["subject"], "--out", tmp_path / "map.png", "--samples", 2, "--seed", 4)
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    figures = json.loads((tmp_path / "map.json").read_text())
    std = embedding_std(decoder, tiny_tokenizer, [fact.subject for fact in public_facts()])
    fact = Fact(record["subject"], record["prompt"])
    trace = tracing.trace_fact(decoder, tiny_tokenizer, fact, std, TracingSettings(samples=2, seed=4))
    assert figures["prompt"] == prompt
    assert figures["answer"] == trace.answer
    assert figures["embedding_std"] == std
    assert [figures["clean"], figures["corrupted"]] == [trace.clean, trace.corrupted]
    assert figures["probability"] == {kind: trace.restored[kind].tolist() for kind in KINDS}
    shown = capsys.readouterr().out
    assert f"{trace.clean:.3f}, with a noisy subject {trace.corrupted:.3f}" in shown
    assert f"one layer {figures['suggested']['layer']}" in shown


def test_the_average_is_over_the_facts_that_the_model_knows(tmp_path, capsys):
    rows = [f"{r['subject']},{r['prompt']},{r['target_true']}" for r in RECORDS]
    rows.append(f"{RECORDS[0]['subject']},{RECORDS[0]['prompt']},market")
    (tmp_path / "facts.csv").write_text("\n".join(["subject,prompt,answer", *rows]))
    run("--data", tmp_path / "facts.csv", "--limit", 3, "--out", tmp_path / "mean.png", "--kind", "mlp")
    figures = json.loads((tmp_path / "mean.json").read_text())
    assert figures["facts"] == 3
    assert figures["samples"] == 3
    assert list(figures["indirect_effect"]) == ["mlp"]
    assert (tmp_path / "mean.png").is_file()
    assert "does not know 1 of 6 facts; it is left out." in capsys.readouterr().out


@pytest.mark.slow
def test_public_facts_are_taken_where_there_are_no_others(capsys):
    with pytest.raises(SystemExit):
        run()
    assert "The model knows none of " in capsys.readouterr().err
    relations = [fact.prompt for fact in public_facts()[:10]]
    assert len(set(relations)) == 10


def test_an_interrupt_leaves_the_average_of_what_is_done(tmp_path, capsys, monkeypatch):
    real, traced = tracing.trace_fact, []

    def interrupted(*args, **kwargs):
        if len(traced) == 2:
            raise KeyboardInterrupt
        traced.append(real(*args, **kwargs))
        return traced[-1]

    monkeypatch.setattr(tracing, "trace_fact", interrupted)
    (tmp_path / "facts.json").write_text(json.dumps(RECORDS))
    run("--data", tmp_path / "facts.json", "--out", tmp_path / "mean.png")
    assert json.loads((tmp_path / "mean.json").read_text())["facts"] == 2
    assert "over the first 2 facts of 5" in capsys.readouterr().out


@pytest.mark.parametrize(
    "record",
    [
        {"subject": "Anna", "template": "{} is", "prompt": "Anna is", "attribute": "old"},
        {"requested_rewrite": {"subject": "Anna", "prompt": "{} is", "target_true": {"str": "old"}}},
        {"subject": "Anna", "prompt": "{} is", "target_true": "old", "target_new": "young"},
        {"subject": "Anna", "prompt": "{} is", "target_true": "old", "target_new": "young", "answer": "She is young."},
    ],
)
def test_published_formats_are_read(record, tmp_path):
    from lightning_edit.datamodules.known_facts import read_facts

    (tmp_path / "facts.json").write_text(json.dumps([record]))
    assert read_facts(str(tmp_path / "facts.json")) == [Fact("Anna", "{} is", "old")]
    assert read_facts(str(tmp_path / "facts.json"), chat=True) == [Fact("Anna", "Complete: {} is", "old")]
    asked = {"subject": "Anna", "prompt": "{} is", "question": "How is Anna?", "answer": "old"}
    (tmp_path / "facts.json").write_text(json.dumps([asked]))
    assert read_facts(str(tmp_path / "facts.json"), chat=True) == [Fact("Anna", "How is {}?", "old")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"subject": "Anna", "prompt": "{} is"}], "record 1: a fact needs the texts subject, prompt"),
        (
            [{"subject": "Anna", "prompt": "{} is", "target_new": "young", "answer": "She is young."}],
            "a fact needs the texts subject, prompt, and target_true or attribute or ground_truth (what",
        ),
        ([{"subject": "Anna", "prompt": "She is", "answer": "old"}], "holds neither {} nor the subject"),
        ([3], "expected an object with the fields subject, prompt and answer"),
        ([], "holds no record"),
        ([{"subject": "Anna", "prompt": "{} is", "answer": "old"}], "knows none of 1 answer"),
    ],
)
def test_a_file_that_holds_no_facts_is_refused(content, message, tmp_path, capsys):
    (tmp_path / "facts.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit) as left:
        run("--data", tmp_path / "facts.json")
    assert left.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["Anna is"], "`--subject` is missing"),
        (["Anna is", "--subject", "Otto"], "'Otto' does not stand in the prompt"),
        (["--subject", "Anna"], "belong to a prompt"),
        (["Anna is", "--subject", "Anna", "--data", "x.csv"], "not both"),
        (["Anna is", "--subject", "Anna", "--samples", "0"], "`--samples` must be a whole number of 1 or more"),
        (["Anna is", "--subject", "Anna", "--noise", "-1"], "`tracing.noise` must be a number above 0"),
        (["Anna is", "--subject", "Anna", "--out", "map.jpg"], "ends in .png"),
        ([f"Anna is{' old' * 200}", "--subject", "Anna"], "the model's context holds 128"),
        (["--data", "none.csv"], "there is no file none.csv"),
        (["Anna is", "--subject", "Anna", "--chat"], "has no chat template"),
        (["--data", "facts.json", "--out", "facts.png"], "facts.json would be written over"),
    ],
)
def test_a_mistake_gets_one_clear_message(args, message, capsys):
    with pytest.raises(SystemExit) as left:
        run(*args)
    assert left.value.code == 2
    assert message in capsys.readouterr().err
