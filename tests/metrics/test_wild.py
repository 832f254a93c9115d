"""WILD's protocol against plain references: one prompt at a time, cut by hand."""

from dataclasses import replace

import pytest
import torch

from lightning_edit.asking.chat import ChatSettings, ChatTokenizer
from lightning_edit.asking.questions import as_question
from lightning_edit.asking.tokenization import encode_prompt
from lightning_edit.callbacks.report import table
from lightning_edit.commands.comparison.quantities import quantity
from lightning_edit.errors import EditError
from lightning_edit.messages import terminal
from lightning_edit.metrics import EvaluationSettings
from lightning_edit.metrics.descriptions import description
from lightning_edit.metrics.judging.settings import JudgeSettings
from lightning_edit.metrics.measurable import measurable
from lightning_edit.metrics.wild.asked import Asking
from lightning_edit.metrics.wild.exact_match import exact_match
from lightning_edit.metrics.wild.kept import before_of, notes
from lightning_edit.metrics.wild.measuring import FIGURES, WildMetrics
from lightning_edit.metrics.wild.settings import WildSettings
from lightning_edit.models.decoder import find_decoder
from tests.asking.test_chat import CHATML, in_chat, tokenizer_with
from tests.judges import served
from tests.small_models import make_llama, make_request, make_tokenizer

NO_JUDGE = JudgeSettings()


def edits():
    prompts = {
        "paraphrase_prompts": ("Eiffel Tower. Its city is", "Where is it? In", "And in"),
        "neighborhood_prompts": ("Paris has the", "Rome has the"),
        "locality": [("Anna lives in", "Rome")],
    }
    return [make_request(target_true=true, case_id=true, **prompts) for true in ("Paris", "London")]


def alone(model, ids, stops, tokenizer, count):
    """The greedy text after one prompt, without a cache, up to the first stop."""
    new = []
    for _ in range(count):
        with torch.no_grad():
            token = int(model(input_ids=torch.tensor([[*ids, *new]])).logits[0, -1].argmax())
        new.append(token)
        text = tokenizer.decode(new)
        for stop in stops:
            if stop in text:
                return min((text.split(stop)[0] for stop in stops), key=len).strip()
    return tokenizer.decode(new).strip()


class Other:
    """Another model for a block, as an edit would make it."""

    def __init__(self, model):
        self.weight, self.used = model.get_output_embeddings().weight, 0

    def __call__(self):
        return self

    def __enter__(self):
        self.used += 1
        with torch.no_grad():
            self.weight.neg_()

    def __exit__(self, *_):
        with torch.no_grad():
            self.weight.neg_()


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("form", ["bare", "qa_inst"])
def test_answers_and_figures_are_those_of_one_prompt_at_a_time(form, bos):
    model, tokenizer = make_llama(), make_tokenizer(bos=bos)
    model.generation_config.eos_token_id = None
    # Letters that this random model does write.
    settings = WildSettings(input=form, new_tokens=6, stop=["e", "\n"], paraphrases=2, unrelated=2)
    other, decoder = Other(model), find_decoder(model)
    shape = "Please answer the question:\n\nQ: {}\nA:" if form == "qa_inst" else "{}"

    def answer(prompt):
        return alone(model, tokenizer(shape.format(prompt))["input_ids"], settings.stop, tokenizer, 6)

    said = answer("The Eiffel Tower is located in the city of")
    requests = [make_request(target_new=said, paraphrase_prompts=edits()[0].paraphrase_prompts), *edits()]
    wild = WildMetrics.of_run(tokenizer, settings, NO_JUDGE, ChatSettings())
    wild.check(requests, 64)
    records = [{} for _ in requests]
    wild.measure(decoder, requests, records, other)
    assert other.used == 1
    shares, left_out = {name: [] for name in FIGURES[:3]}, 0
    for request, record in zip(requests, records, strict=True):
        found = record["wild"]
        asked = {"reliability": [request.rewrite_prompt], "generalization": list(request.paraphrase_prompts[:2])}
        if request.locality:
            with other:
                asked["locality"] = [prompt for prompt in ("Anna lives in", "Paris has the") if answer(prompt)]
            left_out += 2 - len(asked["locality"])
        assert found.keys() == asked.keys()
        for measure, prompts in asked.items():
            assert [entry["prompt"] for entry in found[measure]] == prompts
            for entry in found[measure]:
                assert entry["text"] == answer(entry["prompt"])
                gold = request.target_new
                if measure == "locality":
                    with other:
                        gold = answer(entry["prompt"])
                assert entry["gold"] == gold and entry["exact"] is exact_match(entry["text"], gold)
            right = [entry["exact"] for entry in found[measure]]
            shares[f"wild_exact_{measure}"].append(sum(right) / len(right))
    figures = wild.compute()
    for name, values in shares.items():
        assert figures[name] == pytest.approx(sum(values) / len(values)) and figures[f"{name}_n"] == len(values)
    assert figures["wild_exact_reliability"] > 0
    # What the other model answers with nothing says nothing.
    assert left_out == (2 if bos and form == "qa_inst" else 0)
    marked = {"answers": 3 + 2 * 5 - left_out, "left_out": left_out}
    assert wild.section("after") == {"protocol": wild.protocol, "after": marked}
    wild.reset()
    assert wild.section("after")["after"] == {"answers": 0, "left_out": 0}


def test_an_unedited_model_is_compared_with_itself_and_asked_once():
    model, seen = make_llama(), []
    decoder, tokenizer = find_decoder(model), make_tokenizer()
    wild = WildMetrics.of_run(tokenizer, WildSettings(new_tokens=3), NO_JUDGE, ChatSettings())
    records = [{}, {}]
    wild.measure(decoder, edits(), records, None, lambda *told: seen.append(told))
    assert wild.compute()["wild_exact_locality"] == 1
    # Four prompts of these edits are the same ones.
    assert seen[-1] == ("generate (texts)", 6, 6)
    assert wild.passes(edits(), edited=False) == 1 and wild.passes(edits(), edited=True) == 2


@pytest.mark.parametrize("edited", [False, True])
def test_prompts_that_the_unedited_model_answers_with_nothing_are_left_out_of_locality(edited):
    decoder, tokenizer = find_decoder(make_llama()), make_tokenizer()
    unedited = Other(decoder.model) if edited else None

    def measured(**settings):
        wild, records = WildMetrics.of_run(tokenizer, WildSettings(**settings), NO_JUDGE, ChatSettings()), [{}, {}]
        wild.measure(decoder, edits(), records, unedited)
        return wild, {entry["prompt"]: entry["gold"] for entry in records[1]["wild"].get("locality", [])}

    _, golds = measured(new_tokens=3, stop=[])
    # Where answers end with what one of them begins with, that one is empty.
    begins = golds["Paris has the"][0]
    empty = {prompt for prompt, gold in golds.items() if gold.startswith(begins)}
    wild, left = measured(new_tokens=3, stop=[begins])
    assert left.keys() == golds.keys() - empty and all(left.values())
    assert wild.compute().get("wild_exact_locality_n", 0) == 2 * bool(left)
    section = wild.section("after")
    assert section["after"] == {"answers": 2 * (3 + len(left)), "left_out": 2 * len(empty)}
    [line] = notes(section)
    assert line.startswith(f"wild: {2 * len(empty)} unrelated prompts are left out of locality")
    assert notes({**section, "after": {"answers": 6, "left_out": 0}}) == []


def test_what_is_not_asked_costs_nothing():
    wild = WildMetrics()
    records = [{}]
    wild.check([make_request()], 1)
    wild.measure(None, [make_request()], records, None)
    assert records == [{}] and not wild.compute() and not wild.section("after") and not wild.passes([], True)


def test_each_form_has_its_own_tokens():
    chat = in_chat(CHATML)
    request = replace(edits()[0], question="Where is the {}?", paraphrase_questions=("In which city is it?",))
    asked = as_question(request)
    template = chat.plain.apply_chat_template

    def of(tokenizer, form, edit):
        asking = Asking.of_run(tokenizer, WildSettings(input=form), ChatSettings())
        shown = asking.asked(edit)
        assert shown.target == request.target_new and len(shown.unrelated) == 3
        return asking.form, [encode_prompt(asking.tokenizer, prompt) for prompt in shown.edited]

    def turns(*questions):
        messages = [[{"role": "user", "content": question}] for question in questions]
        return [template(one, add_generation_prompt=True, return_dict=False) for one in messages]

    plain = [chat.plain(prompt)["input_ids"] for prompt in (request.rewrite_prompt, *request.paraphrase_prompts[:2])]
    questions = ["Where is the Eiffel Tower?", "In which city is it?"]
    instructed = [
        chat.plain(f"Please answer the question:\n\nQ: {question}\nA:")["input_ids"] for question in questions
    ]
    for form in ("auto", "chat"):
        assert of(chat, form, asked) == ("chat", turns(*questions))
    assert of(chat.plain, "auto", request) == of(chat.plain, "bare", request) == of(chat, "bare", asked)
    assert of(chat, "bare", asked) == ("bare", plain)
    assert of(chat, "qa_inst", asked) == of(chat.plain, "qa_inst", request) == ("qa_inst", instructed)
    # Edits that are made in plain text can be asked in a chat.
    assert of(tokenizer_with(CHATML), "chat", request) == ("chat", turns(*questions))
    with pytest.raises(EditError, match=r"`evaluation\.wild_settings\.input: chat` needs a tokenizer"):
        Asking.of_run(make_tokenizer(), WildSettings(input="chat"), ChatSettings())


def test_facts_stay_before_a_prompt_in_each_form():
    informed = ChatTokenizer(make_tokenizer(), None, lambda prompt: f"Fact. {prompt}")
    for form, text in (("bare", "Fact. Where?"), ("qa_inst", "Please answer the question:\n\nQ: Fact. Where?\nA:")):
        asking = Asking.of_run(informed, WildSettings(input=form), ChatSettings())
        assert encode_prompt(asking.tokenizer, "Where?") == make_tokenizer()(text)["input_ids"]


def test_what_could_not_be_measured_is_refused_or_said(caplog):
    long = make_request(paraphrase_prompts=("Paris " * 70,), case_id="long")
    wild = WildMetrics.of_run(make_tokenizer(), WildSettings(), NO_JUDGE, ChatSettings())
    with pytest.raises(EditError, match=r"record long: asked as .*input: bare.* a context of 64"):
        wild.check([long], 64)
    wild.check([long], None)
    assert not caplog.text
    wild.check([make_request(target_new="St. Louis", case_id="7"), *edits()], 64)
    assert "1 target holds a text at which answers end" in caplog.text and "record 7" in caplog.text
    caplog.clear()
    chat = WildMetrics.of_run(in_chat(CHATML), WildSettings(), NO_JUDGE, ChatSettings())
    chat.check([as_question(request) for request in edits()], 256)
    assert "exact match wants the bare answer" in caplog.text
    with pytest.raises(EditError, match=r"wild_settings\.stop` must hold texts that are not empty"):
        WildSettings(stop=[".", ""])
    with pytest.raises(EditError, match=r"`evaluation\.judge` marks the answers of `evaluation\.wild`"):
        EvaluationSettings(judge=JudgeSettings(model="m"))


def test_a_judge_marks_the_same_answers(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    decoder, tokenizer = find_decoder(make_llama()), make_tokenizer()
    requests, settings = edits(), WildSettings(new_tokens=3)
    with served() as server:
        judge = JudgeSettings(model="marker", url=server.url, cache_dir=None)
        wild = WildMetrics.of_run(tokenizer, settings, judge, ChatSettings())
        wild.check(requests, 64)
        # One question to see whether it answers.
        assert len(server.seen) == 1
        records = [{} for _ in requests]
        wild.measure(decoder, requests, records, Other(decoder.model))
        exact = WildMetrics.of_run(tokenizer, settings, NO_JUDGE, ChatSettings())
        exact.measure(decoder, requests, plain := [{} for _ in requests], Other(decoder.model))
    for record, other in zip(records, plain, strict=True):
        for measure, entries in record["wild"].items():
            for entry, without in zip(entries, other["wild"][measure], strict=True):
                judged = entry.pop("by"), entry.pop("judged")
                assert entry == without
                if judged[0] == "judge":
                    assert judged[1] is (entry["gold"][0].lower() == entry["text"][0].lower())
    figures, section = wild.compute(), wild.section("after")
    for name in FIGURES[:3]:
        assert figures[name] == exact.compute()[name] and name.replace("exact", "judged") in figures
    assert section["protocol"]["judge"]["model"] == "marker" and server.url not in str(section)
    marked = section["after"]
    assert marked["judged"] + marked["by_rule"] == marked["answers"] == 12 and marked["exact_match"] == 0
    [line] = notes(section)
    assert line.startswith("wild, after: ") and "marked by marker" in line and line.endswith("0 by exact match.")
    failed = {**marked, "exact_match": 3, "unreadable": 1, "problem": "the endpoint answered 429", "from_cache": 1}
    [line] = notes({**section, "after": failed})
    assert " (1 of them from the cache), " in line
    assert line.endswith("3 by exact match: 1 reply neither A nor B; the endpoint answered 429.")


def test_figures_of_before_compare_only_where_they_were_measured_alike(caplog):
    figures = {"S": 0.5, "wild_exact_reliability": 0.25}
    wild = WildMetrics.of_run(make_tokenizer(), WildSettings(), NO_JUDGE, ChatSettings())
    other = WildMetrics.of_run(make_tokenizer(), WildSettings(new_tokens=49), NO_JUDGE, ChatSettings())
    section = {"protocol": wild.protocol, "before": {"answers": 3}, "after": {"answers": 3}}
    assert before_of(figures, section, wild.protocol) == (figures, {k: section[k] for k in ("protocol", "before")})
    assert not caplog.text
    assert before_of(figures, section, other.protocol) == ({"S": 0.5}, {})
    assert "measured in another way" in caplog.text
    assert before_of(figures, section, {}) == before_of(figures, None, {}) == ({"S": 0.5}, {})


def test_figures_are_named_shown_and_described(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    names = ("efficacy_score", "generated_match", *FIGURES)
    terminal().print(table({"before": dict.fromkeys(names, 0.25), "after": dict.fromkeys(names, 0.75)}, 3))
    shown = capsys.readouterr().out
    assert all(heading in shown for heading in ("score", "generated", "exact", "judged"))
    rows = {
        kind: line.count("25.0 -> 75.0")
        for line in shown.splitlines()
        for kind in ("efficacy", "locality")
        if kind in line
    }
    assert rows == {"efficacy": 4, "locality": 2}
    assert description("edit/wild_exact_locality").startswith("WILD: share of unrelated prompts")
    assert all(description(f"edit/{name}") and quantity(name).unit == "%" for name in FIGURES)
    settings = EvaluationSettings(wild=True, judge=JudgeSettings(model="m"))
    assert set(FIGURES) < set(measurable(edits(), settings))
    assert "wild_exact_locality" not in measurable([make_request()], EvaluationSettings(wild=True))
    assert not set(FIGURES) & set(measurable(edits(), EvaluationSettings()))
