"""What is measured of each record: batched as one at a time, right in every field, and refused where it cannot be."""

import json
import math
from contextlib import contextmanager

import pytest
import torch
import transformers

from lightning_edit import EditRequest
from lightning_edit.asking.generation import generate
from lightning_edit.errors import EditError
from lightning_edit.loading.pretrained import load_model
from lightning_edit.metrics import FIGURES, EditMetrics, EvaluationSettings, check_evaluation, evaluate, figures_of
from lightning_edit.metrics.edit_metrics import LONG as LONGER
from lightning_edit.metrics.edit_metrics import OF_LONG, OF_LONG_TEXTS
from lightning_edit.metrics.generated_text import generation_entropy, reference_score
from lightning_edit.metrics.settings import TEACHER_FORCED
from lightning_edit.models.decoder import find_decoder
from lightning_edit.storage.numbers import to_json
from lightning_edit.tiny import World
from tests.architectures import build
from tests.small_models import make_gpt2, make_llama, make_request, make_tokenizer

EVERYTHING = EvaluationSettings(generate=True, max_length=24, texts_per_prompt=2, generated_match=True, match_tokens=6)
FAMILIES = ("GPT2", "Llama", "Mistral", "Gemma2", "Falcon")
LISTS = ("paraphrase_prompts", "neighborhood_prompts", "attribute_prompts", "generation_prompts")


def world_requests(count):
    """Records of the embedded world with something for every metric, each another amount."""
    records = World.generate().records(count, seed=0)
    others = [(r["prompt"].format(r["subject"]), r["target_true"]) for r in records]
    return [
        EditRequest(
            record["subject"],
            record["prompt"],
            record["target_new"],
            record["target_true"] if i != 1 else None,
            str(i),
            **{name: tuple(record[name][: 1 + i]) for name in LISTS},
            locality=tuple(others[:i]),
            reference_texts=(f"{others[0][0]} {record['target_new']}.",) * (i % 2),
            essence_texts=(f"{record['subject']} is a very old baker.",) * (i % 3),
        )
        for i, record in enumerate(records)
    ]


def broken(model):
    """A context in which the model is another one, as after many edits."""

    @contextmanager
    def context():
        weight = next(p for name, p in model.named_parameters() if p.dim() == 2 and ".1." in name).data
        old = weight.clone()
        weight.mul_(-3)
        yield
        weight.copy_(old)

    return context


def flat(value, path=""):
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {at: leaf for key, inner in items for at, leaf in flat(inner, f"{path}/{key}").items()}
    return {path: value}


def assert_same(found, expected):
    """Equal texts and counts, and numbers up to rounding: some families compute a little in float32."""
    found, expected = flat(found), flat(expected)
    assert {k: v for k, v in found.items() if not isinstance(v, float)} == {
        k: v for k, v in expected.items() if not isinstance(v, float)
    }
    numbers = {k: v for k, v in expected.items() if isinstance(v, float)}
    assert {k: found[k] for k in numbers} == pytest.approx(numbers, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_records_measured_together_are_as_each_alone(family, tiny_tokenizer):
    model = build(family).double()
    decoder, requests, unedited = find_decoder(model), world_requests(5), broken(model)
    together, alone = EditMetrics(), EditMetrics()
    found = evaluate(decoder, tiny_tokenizer, requests, together, EVERYTHING, unedited)
    expected = [evaluate(decoder, tiny_tokenizer, [r], alone, EVERYTHING, unedited)[0] for r in requests]
    assert_same(found, expected)
    assert float(together.compute()["efficacy_score"]) == float(alone.compute()["efficacy_score"])


def test_padding_tokens_and_their_side_do_not_matter():
    model, requests = make_llama(), [make_request(target_true="Paris", paraphrase_prompts=["You visit it in Rome, in"])]
    tokenizers = [make_tokenizer(padding_side=side) for side in ("left", "right")]
    tokenizers[1].pad_token = None
    settings = EvaluationSettings(generated_match=True)
    first, second = (evaluate(find_decoder(model), t, requests, EditMetrics(), settings) for t in tokenizers)
    assert first == second


def test_a_record_is_plain_json_that_gives_its_figures_again(tiny_tokenizer):
    model, metrics, again = load_model("tiny", "auto"), EditMetrics(), EditMetrics()
    records = evaluate(find_decoder(model), tiny_tokenizer, world_requests(6), metrics, EVERYTHING, broken(model))
    for line in [json.dumps(record) for record in records]:
        again.update(figures_of(json.loads(line)))
    figures = metrics.compute()
    assert set(FIGURES) - set(figures) == {*OF_LONG, *OF_LONG_TEXTS}
    assert {name: float(v) for name, v in figures.items()} == {name: float(v) for name, v in again.compute().items()}
    assert figures["efficacy_score_n"] == 5  # one true target is unknown
    assert figures["efficacy_token_accuracy_n"] == 6
    assert figures["reference_score_n"] == 3
    assert figures["essence_score_n"] == 4
    assert figures["locality_unchanged_n"] == 5


def test_a_broken_models_record_gives_the_same_figures_when_it_is_read_back(tiny_tokenizer):
    model = load_model("tiny", "auto")
    prompts = {"paraphrase_prompts": ("The guild lists Hulbin as a",), "neighborhood_prompts": ("Anna works as a",)}
    fields = ("Hulbin", "{} earns a living as a", "roofer")
    requests = [EditRequest(*fields, true, case_id=str(true), **prompts) for true in ("baker", None)]
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(math.nan)
    settings = EvaluationSettings(generated_match=False)
    for record in evaluate(find_decoder(model), tiny_tokenizer, requests, EditMetrics(), settings):
        line = to_json(record)
        assert '"log_prob_new": null' in line
        again, figures = figures_of(json.loads(line)), figures_of(record)
        assert again == pytest.approx(figures, nan_ok=True)
        # Without a true target there is nothing to compare with.
        assert ("efficacy_score" in again) == (record["target_true"] is not None)


def predictions(model, tokenizer, prompt, answer):
    """Reference: the argmax in the place of each of the answer's tokens."""
    start = len(tokenizer(prompt)["input_ids"])
    ids = torch.tensor([tokenizer(f"{prompt} {answer}")["input_ids"]])
    with torch.no_grad():
        return model(input_ids=ids).logits[0, start - 1 : -1].argmax(-1).tolist(), ids[0, start:].tolist()


def test_locality_compares_with_the_answer_and_with_the_unedited_model():
    model, tokenizer = make_gpt2(), make_tokenizer()
    pairs = (("The mother tongue of Danielle Darrieux is", "French, which she speaks"), ("You play the", "violin"))
    unedited = broken(model)
    record = evaluate(find_decoder(model), tokenizer, [make_request(locality=pairs)], EditMetrics(), unedited=unedited)[
        0
    ]
    for entry, (prompt, answer) in zip(record["locality"], pairs, strict=True):
        now, wanted = predictions(model, tokenizer, prompt, answer)
        with unedited():
            before, _ = predictions(model, tokenizer, prompt, answer)
        assert (entry["prompt"], entry["answer"], entry["tokens"]) == (prompt, answer, len(wanted))
        assert entry["predicted"] == tokenizer.decode(now)
        assert entry["predicted_before"] == tokenizer.decode(before)
        assert entry["tokens_correct"] == sum(a == b for a, b in zip(now, wanted, strict=True))
        assert entry["tokens_unchanged"] == sum(a == b for a, b in zip(now, before, strict=True))
    assert any(entry["tokens_unchanged"] < entry["tokens"] for entry in record["locality"])
    plain = evaluate(find_decoder(model), tokenizer, [make_request(locality=pairs)], EditMetrics())[0]
    assert "tokens_unchanged" not in plain["locality"][0]
    assert set(figures_of(record)) - set(figures_of(plain)) == {"locality_unchanged"}


def test_generated_texts_have_the_published_length_and_give_the_text_scores(tiny_tokenizer):
    model, requests = load_model("tiny", "auto"), world_requests(3)
    settings = EvaluationSettings(generate=True, max_length=30)
    model.generation_config.eos_token_id = tiny_tokenizer(".", add_special_tokens=False)["input_ids"][0]
    records = evaluate(find_decoder(model), tiny_tokenizer, requests, EditMetrics(), settings)
    for request, record in zip(requests, records, strict=True):
        whole = [entry["prompt"] + entry["text"] for entry in record["generations"]]
        assert [entry["prompt"] for entry in record["generations"]] == list(request.generation_prompts)
        # Full stops end texts here, so they are tokens without a text.
        assert all("\n" in text and "." not in text for text in whole)
        assert all(20 <= len(tiny_tokenizer(text)["input_ids"]) <= 30 for text in whole)
        assert record["generation_entropy"] == generation_entropy(whole)
        assert record.get("reference_score") == (
            reference_score(whole, request.reference_texts) if request.reference_texts else None
        )


def test_the_seed_decides_the_texts(tiny_tokenizer):
    decoder, requests = find_decoder(load_model("tiny", "auto")), world_requests(2)

    def texts(**changes):
        settings = EvaluationSettings(generate=True, max_length=24, **changes)
        records = evaluate(decoder, tiny_tokenizer, requests, EditMetrics(), settings)
        return [[entry["text"] for entry in record["generations"]] for record in records]

    assert texts() == texts() != texts(seed=1)
    twice = texts(texts_per_prompt=2)
    assert [row[::2] for row in twice] == texts()
    assert twice[1][0] != twice[1][1]


def test_a_match_is_found_where_the_model_says_the_target(tiny_tokenizer):
    model, requests = load_model("tiny", "auto"), []
    for record in World.generate().records(8, seed=0):
        true, new = record["target_true"], record["target_new"]
        requests += [EditRequest(record["subject"], record["prompt"], answer) for answer in (true, new)]
    metrics, settings = EditMetrics(), EvaluationSettings(generated_match=True, match_tokens=8)
    records = evaluate(find_decoder(model), tiny_tokenizer, requests, metrics, settings)
    assert [record["generated_match"] for record in records] == [True, False] * 8
    assert metrics.compute()["generated_match"] == 0.5
    assert records[0]["continuation"] == records[1]["continuation"]


def test_matches_are_looked_for_in_some_paraphrases_too(tiny_tokenizer):
    requests = []
    for record in World.generate().records(4, seed=0):
        other = f"The {record['target_new']} of {record['subject']}"
        wordings = (record["paraphrase_prompts"][0], other, "never read")
        fact = (record["subject"], record["prompt"], record["target_true"])
        requests += [EditRequest(*fact, paraphrase_prompts=wordings)]
    requests += [EditRequest("Anna", "{} is", "here")]
    metrics, settings = EditMetrics(), EvaluationSettings(match_tokens=8)
    decoder = find_decoder(load_model("tiny", "auto"))
    *records, bare = evaluate(decoder, tiny_tokenizer, requests, metrics, settings)
    for request, record in zip(requests, records, strict=False):
        read = record["paraphrase_continuations"]
        assert [entry["prompt"] for entry in read] == list(request.paraphrase_prompts[:2])
        assert read[0]["match"] and record["generated_paraphrase"] == sum(entry["match"] for entry in read) / 2
    assert "generated_paraphrase" not in bare
    assert metrics.compute()["generated_paraphrase_n"] == 4
    (fewer,) = evaluate(decoder, tiny_tokenizer, requests[:1], metrics, EvaluationSettings(match_paraphrases=0))
    assert "generated_paraphrase" not in fewer and fewer["generated_match"]


def test_long_answers_are_continued_to_their_end(tiny_tokenizer):
    decoder, facts = find_decoder(load_model("tiny", "auto")), [World.generate().records(8, seed=0)[i] for i in (0, 3)]
    prompts = [[r["prompt"].format(r["subject"]), r["paraphrase_prompts"][0]] for r in facts]
    own = generate(decoder, tiny_tokenizer, [prompt for both in prompts for prompt in both], [30] * 4, stop=False)
    # What the model says by itself, what it says to another wording, and a short answer.
    requests = [EditRequest("", p, own[2 * i], paraphrase_prompts=(other,)) for i, (p, other) in enumerate(prompts)]
    requests.append(EditRequest("", prompts[1][0], own[1], paraphrase_prompts=(prompts[0][1],)))
    requests.append(EditRequest("", prompts[0][0], facts[0]["target_true"]))
    metrics, settings = EditMetrics(), EvaluationSettings(match_tokens=8)
    *records, other, short = evaluate(decoder, tiny_tokenizer, requests, metrics, settings)
    for record in records:
        assert record["generated_match"] and record["generated_rouge_l"] == 1
        assert record["efficacy"][0]["tokens"] > LONGER
    assert not other["generated_match"] and 0 < other["generated_rouge_l"] < 1
    assert other["paraphrase_continuations"][0]["rouge_l"] == other["generated_paraphrase_rouge_l"]
    assert "generated_rouge_l" not in short and short["generated_match"]
    long, figures = [*records, other], metrics.compute()
    nll = [-record["efficacy"][0]["log_prob_new"] for record in long]
    assert figures["efficacy_nll"] == pytest.approx(sum(nll) / 3) and figures["efficacy_nll_n"] == 3
    assert set(OF_LONG) | set(OF_LONG_TEXTS) <= set(figures)


def test_an_answer_is_correct_where_it_is_the_one_to_give(tiny_tokenizer):
    model, requests = load_model("tiny", "auto"), world_requests(4)
    records = evaluate(find_decoder(model), tiny_tokenizer, requests, EditMetrics())
    # The unedited model knows its facts: right for neighbors, wrong for what is to be written.
    for record in (record for record in records if record["target_true"]):
        assert all(entry["correct"] and entry["tokens_correct"] == entry["tokens"] for entry in record["neighborhood"])
        assert not record["efficacy"][0]["correct"]
        assert record["efficacy"][0]["log_prob_new"] < record["efficacy"][0]["log_prob_true"]


def test_generating_leaves_model_and_random_state_as_they_were(tiny_tokenizer):
    model = load_model("tiny", "auto").train()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    transformers.set_seed(3)
    state, settings = torch.get_rng_state(), model.generation_config
    evaluate(find_decoder(model), tiny_tokenizer, world_requests(2), EditMetrics(), EVERYTHING)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert model.generation_config is settings


def test_nothing_to_measure_gives_nothing(tiny_tokenizer):
    decoder = find_decoder(load_model("tiny", "auto"))
    assert evaluate(decoder, tiny_tokenizer, [], EditMetrics(), EVERYTHING) == []


LONG = "The Eiffel Tower " * 10


@pytest.mark.parametrize(
    ("settings", "request_changes", "context", "message"),
    [
        ({"generate": True}, {}, 64, r"`evaluation\.generate` is set, but no record .*\(record 7\).*false"),
        (
            {"generate": True, "max_length": 20},
            {"generation_prompts": [LONG]},
            64,
            r"record 7: .*20.*max_length|max_len",
        ),
        ({"generate": True}, {"generation_prompts": [LONG]}, 30, r"record 7: the generation prompt.*context of 30"),
        (
            {"generated_match": True},
            {"subject": LONG.strip()},
            30,
            r"7: the rewrite prompt.*holds 30\. Shorten it",
        ),
        ({}, {"paraphrase_prompts": ["Rome.", LONG]}, 30, r"record 7: the paraphrase.*holds 30\. Shorten it"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_editing(settings, request_changes, context, message):
    requests = [make_request(**request_changes), make_request(case_id="8")]
    with pytest.raises(EditError, match=message):
        check_evaluation(EvaluationSettings(**settings), requests, make_tokenizer(), context)


def test_what_can_be_measured_is_not_refused():
    requests = [make_request(), make_request(generation_prompts=[LONG], case_id="8")]
    check_evaluation(EvaluationSettings(generate=True, generated_match=True), requests, make_tokenizer(), None)
    check_evaluation(TEACHER_FORCED, [make_request(generation_prompts=[LONG])], make_tokenizer(), 8)
    check_evaluation(EvaluationSettings(generate=True), [], make_tokenizer(), 8)


@pytest.mark.parametrize("name", ["max_length", "texts_per_prompt", "top_k", "match_tokens"])
def test_a_setting_out_of_range_is_named(name):
    with pytest.raises(EditError, match=f"`evaluation.{name}` must be a whole number of 1 or more, got 0"):
        EvaluationSettings(**{name: 0})


def test_a_special_token_in_the_target_does_not_hide_a_match(tiny_tokenizer):
    decoder, request = find_decoder(load_model("tiny", "auto")), world_requests(1)[0]
    settings = EvaluationSettings(generated_match=True)
    said = evaluate(decoder, tiny_tokenizer, [request], EditMetrics(), settings)[0]["continuation"].split()[0]
    end = tiny_tokenizer.eos_token
    for target, expected in ((said, True), (said + end, True), (f"{said} {end}", True), (end, False)):
        asked = make_request(subject=request.subject, prompt=request.prompt, target_new=target)
        record = evaluate(decoder, tiny_tokenizer, [asked], EditMetrics(), settings)[0]
        assert record["generated_match"] is expected, target
