"""Downstream tasks: prompts, and figures against plain loops."""

import json
import math

import pytest
import torch

from lightning_edit.downstream import Fitting, known_tasks, load_task
from lightning_edit.downstream.rows import Row, read_folder, read_jsonl
from lightning_edit.downstream.templates import fill
from lightning_edit.errors import EditError
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.models.decoder import find_decoder
from lightning_edit.progress import silent
from tests.downstream_reference import (
    ANSWERS,
    PUBLISHED,
    TASKS,
    by_hand,
    figures,
    log_prob,
    prepare,
    world_rows,
    write_rows,
    write_task,
)
from tests.small_models import make_gpt2, make_llama, make_tokenizer


@pytest.fixture(scope="module")
def counterfact_model(shared):
    path = str(shared / "models" / "cf-gpt")
    return find_decoder(load_model(path)), load_tokenizer(path)


@pytest.fixture(scope="module")
def tiny():
    return find_decoder(load_model("tiny")), load_tokenizer("tiny")


def test_all_tasks_are_there():
    assert known_tasks(TASKS) == sorted([*PUBLISHED, "hellaswag", "perplexity"])
    for name in known_tasks(TASKS):
        assert load_task(name, TASKS).name == name
        assert len((TASKS / f"{name}.yaml").read_text().splitlines()) <= 22


@pytest.mark.parametrize("name", PUBLISHED)
def test_templates_and_labels_are_the_published_ones(name):
    columns = {key: f" {key}. " for key in ("sentence", "sentence1", "sentence2", "question", "article")}
    columns |= {key: [f"{key} {i}" for i in range(4)] for key in ("choices", "options")}
    task = load_task(name, TASKS)
    assert fill(task.prompt, Row(columns, "here")) == PUBLISHED[name][0](columns)
    assert (task.answers, task.pool) == (ANSWERS[name], 10)


@pytest.mark.parametrize("name", PUBLISHED)
def test_prompts_of_real_rows_are_the_published_ones(name, shared, counterfact_model):
    _, tokenizer = counterfact_model
    task, file = load_task(name, TASKS), shared / "data" / "downstream" / f"{name}.jsonl"
    prepared = task.prepare(read_jsonl(file), 3, 6, Fitting(tokenizer, None))
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:16]]
    prompt, label = PUBLISHED[name]
    shots = "".join(f"{prompt(row)} {label(row)}\n\n" for row in rows[:3])
    assert [question.prompt for question in prepared.questions] == [shots + prompt(row) for row in rows[10:]]
    assert [q.answers[q.right] for q in prepared.questions] == [label(row) for row in rows[10:]]
    assert [question.index for question in prepared.questions] == list(range(10, 16))


@pytest.mark.parametrize("name", PUBLISHED)
def test_figures_of_published_tasks_are_those_of_a_plain_loop(name, shared, counterfact_model):
    decoder, tokenizer = counterfact_model
    task, table = load_task(name, TASKS), read_folder(shared / "data" / "downstream", name)
    prepared = task.prepare(table, 2, 5, Fitting(tokenizer, decoder.context, "cut"))
    measured = prepared.measure(decoder, tokenizer, silent)
    prompts = [question.prompt for question in prepared.questions]
    labels = [PUBLISHED[name][1](table.records[question.index]) for question in prepared.questions]
    expected, texts, scores = by_hand(decoder, tokenizer, name, prompts, labels, task.words)
    assert measured.figures == pytest.approx(expected, abs=1e-6)
    assert [record["generated"] for record in measured.records] == texts
    for record, row in zip(measured.records, scores, strict=True):
        assert record["log_probs"] == pytest.approx(row, abs=1e-4)


def test_perplexity_is_that_of_the_predicted_tokens(shared, counterfact_model, tmp_path):
    decoder, tokenizer = counterfact_model
    lines = (shared / "data" / "text_10k.jsonl").read_text(encoding="utf-8").split("\n")[:300]
    (tmp_path / "perplexity.jsonl").write_text("\n".join(lines), encoding="utf-8")
    task = load_task("perplexity", TASKS)
    prepared = task.prepare(read_folder(tmp_path, "perplexity"), 0, 5, Fitting(tokenizer, decoder.context))
    text = "\n\n".join(json.loads(line)["text"].strip() for line in lines)
    ids = tokenizer(text)["input_ids"]
    losses = []
    for start in range(0, 5 * 128, 128):
        window = torch.tensor([ids[start : start + 128]])
        with torch.no_grad():
            losses.append(float(decoder.model(window, labels=window).loss))
    # Windows are equally long here, so the mean over them is the mean over their 127 predicted tokens each.
    expected = {"downstream/perplexity": math.exp(sum(losses) / 5)}
    assert prepared.measure(decoder, tokenizer, silent).figures == pytest.approx(expected, rel=1e-5)


def test_every_window_begins_with_the_tokenizers_own_start(tmp_path):
    decoder, tokenizer = find_decoder(make_llama()), make_tokenizer(bos=True)
    write_rows(tmp_path / "own.jsonl", [{"body": "Paris is the capital of France. " * 40}, {"body": "You play."}])
    file = write_task(tmp_path, kind="text", text="body", prompt=None, label=None, answers=None, pool=None)
    prepared = prepare(file, decoder, tokenizer, tests=3)
    rows, starts = zip(*prepared.windows, strict=True)
    assert [row[0] for row in rows] == [tokenizer.bos_token_id] * 3
    assert [len(row) for row in rows] == [64] * 3
    assert starts == (1, 1, 1)
    ids = tokenizer("Paris is the capital of France. " * 40)["input_ids"]
    assert [token for row in rows for token in row[1:]] == ids[1 : 3 * 63 + 1]


def test_hellaswag_takes_the_likeliest_ending(tiny, tmp_path):
    decoder, tokenizer = tiny
    rows, answers = world_rows(14)
    options = sorted(answers)[:3]
    made = [
        {"ctx": row["question"], "endings": [*options, row["label"] + "."], "label": str(3 if i % 2 else i % 3)}
        for i, row in enumerate(rows)
    ]
    write_rows(tmp_path / "hellaswag.jsonl", made)
    task = load_task("hellaswag", TASKS)
    prepared = task.prepare(read_folder(tmp_path, "hellaswag"), 0, 4, Fitting(tokenizer, decoder.context))
    measured = prepared.measure(decoder, tokenizer, silent)
    chosen = []
    for row in made[10:]:
        scores = [log_prob(decoder, tokenizer, row["ctx"], ending) for ending in row["endings"]]
        chosen.append(scores.index(max(scores)))
    expected = figures(chosen, [int(row["label"]) for row in made[10:]])
    named = {f"downstream/hellaswag/likelihood_{name}": value for name, value in expected.items()}
    assert measured.figures == pytest.approx(named, abs=1e-6)
    assert [record["likelihood_choice"] for record in measured.records] == chosen
    assert expected["accuracy"] > 0


# -- a task of one's own -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_task_of_ones_own_is_a_yaml_file_alone(tiny, tmp_path):
    decoder, tokenizer = tiny
    rows, answers = world_rows(20)
    write_rows(tmp_path / "places.jsonl", rows)
    prepared = prepare(write_task(tmp_path, "places", answers=answers), decoder, tokenizer, shots=1, tests=12)
    measured = prepared.measure(decoder, tokenizer, silent)
    shot = f"{rows[0]['question']} {rows[0]['label']}\n\n"
    prompts = [shot + row["question"] for row in rows[2:14]]
    labels = [row["label"] for row in rows[2:14]]
    expected, texts, _ = by_hand(decoder, tokenizer, "places", prompts, labels, list(answers))
    assert measured.figures == pytest.approx(expected, abs=1e-6)
    assert [record["generated"] for record in measured.records] == texts
    # The model knows these answers, so both ways of asking are put to the test.
    assert measured.figures["downstream/places/generated_accuracy"] > 0.4
    assert measured.figures["downstream/places/likelihood_accuracy"] > 0.4
    assert measured.records[0] | {"log_probs": None} == {
        "task": "places",
        "row": 2,
        "shots": 1,
        "label": labels[0],
        "generated": texts[0],
        "parsed": labels[0],
        "likelihood_choice": labels[0],
        "log_probs": None,
    }


@pytest.mark.parametrize("model", [make_gpt2, make_llama])
def test_shots_are_dropped_from_the_end_until_the_prompt_fits(model, tmp_path):
    decoder, tokenizer = find_decoder(model()), make_tokenizer()
    question = "Because the mother tongue of Danielle Darrieux is French"
    rows = [{"question": f"{question} {i}", "label": i % 2} for i in range(12)]
    rows[11]["question"] = " ".join([question] * 4)
    write_rows(tmp_path / "own.jsonl", rows)
    prepared = prepare(write_task(tmp_path, pool=10), decoder, tokenizer, shots=9, tests=2)
    length = len(tokenizer(question)["input_ids"])
    assert 9 * length > decoder.context > 4 * length
    for asked, row in zip(prepared.questions, rows[10:], strict=True):
        shots = [f"{r['question']} {['No', 'Yes'][r['label']]}\n\n" for r in rows[:9]]
        lengths = [len(tokenizer("".join(shots[:n]) + row["question"])["input_ids"]) + 3 for n in range(10)]
        kept = max(n for n in range(10) if lengths[n] <= decoder.context)
        assert asked.shots == kept
        assert asked.prompt == "".join(shots[:kept]) + row["question"]
    assert prepared.shots[0] > prepared.shots[1]
    prepared.measure(decoder, tokenizer, silent)


def test_a_question_longer_than_the_context_is_refused_or_cut(tmp_path):
    decoder, tokenizer = find_decoder(make_gpt2()), make_tokenizer()
    text = " ".join(f"The old musician {i} from London plays as well." for i in range(30))
    write_rows(tmp_path / "own.jsonl", [{"question": "Is it?", "label": 0}] * 3 + [{"question": text, "label": 1}])
    file = write_task(tmp_path)
    tokens = len(tokenizer(text)["input_ids"]) + 3
    with pytest.raises(EditError, match=rf"own: .*own\.jsonl, line 4.* {tokens} tokens.*context holds 64.*too_long"):
        prepare(file, decoder, tokenizer, tests=2)
    prepared = prepare(file, decoder, tokenizer, tests=2, too_long="cut")
    cut = prepared.questions[1].prompt
    assert text.endswith(cut)
    # Not a token more than needed is lost, but a text that begins elsewhere may be encoded a little differently.
    assert decoder.context - 2 <= len(tokenizer(cut)["input_ids"]) + 3 <= decoder.context
    prepared.measure(decoder, tokenizer, silent)


def test_a_broken_model_gives_no_choice(tmp_path):
    model, tokenizer = make_gpt2(), make_tokenizer()
    model.lm_head.weight.data.fill_(float("nan"))
    write_rows(tmp_path / "own.jsonl", [{"question": "Is it?", "label": i % 2} for i in range(6)])
    measured = prepare(write_task(tmp_path), find_decoder(model), tokenizer, tests=4).measure(
        find_decoder(model), tokenizer, silent
    )
    assert measured.figures["downstream/own/likelihood_accuracy"] == 0
    assert measured.records[0]["likelihood_choice"] is None
    assert measured.records[0]["log_probs"] == {"No": None, "Yes": None}


# -- figures -----------------------------------------------------------------------------------------------------------
