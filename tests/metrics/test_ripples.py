"""What follows from an edit: tests of a model whose answers are known before and after."""

from contextlib import contextmanager

import pytest
import torch

from lightning_edit import EMMET, EditRequest, Query, Ripple, SecondMomentSettings, ValueSettings, edit
from lightning_edit.asking.questions import as_question
from lightning_edit.commands.comparison.quantities import quantity
from lightning_edit.errors import EditError
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.metrics import EditMetrics, EvaluationSettings, evaluate
from lightning_edit.metrics.descriptions import description
from lightning_edit.metrics.measurable import measurable
from lightning_edit.metrics.ripples.figures import ripple_figures
from lightning_edit.metrics.ripples.measuring import RippleMetrics
from lightning_edit.metrics.ripples.table import tables
from lightning_edit.models.decoder import find_decoder
from lightning_edit.repetitions import distinct
from lightning_edit.ripples import axis_of
from lightning_edit.tiny import World
from tests.small_models import make_request

SETTINGS = EvaluationSettings(match_tokens=6, ripple_tokens=6)
WORLD = World.generate()
FACT = next(record for record in WORLD.records(20, seed=0) if record["prompt"].endswith("living as a"))
SUBJECT, NEW, OLD = FACT["subject"], FACT["target_new"], FACT["target_true"]
PROMPT = FACT["prompt"].replace("{}", SUBJECT)
REWORDED = FACT["paraphrase_prompts"][0]
INSTRUMENT = next(fact.answer for fact in WORLD.facts if (fact.subject, fact.relation) == (SUBJECT, "instrument"))
PLAYS = f"{SUBJECT} likes to play the"
OTHER = next(fact for fact in WORLD.facts if fact.relation == "craft" and fact.subject != SUBJECT)
OTHERS = f"{OTHER.subject} earns a living as a"


def query(prompt, *forms):
    return Query(prompt, (forms,) if forms else ())


def ripple(axis, *queries, **settings):
    return Ripple(axis, queries, **settings)


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    """The embedded model with one fact edited, its tokenizer, and how to go back to the unedited one."""
    model, tokenizer = load_model("tiny", "auto"), load_tokenizer("tiny")
    moments = SecondMomentSettings(tokens=2000, cache_dir=str(tmp_path_factory.mktemp("cache")))
    request, texts = EditRequest(SUBJECT, FACT["prompt"], NEW, OLD), WORLD.sentences()
    how = {"values": ValueSettings(steps=20), "second_moment": moments, "progress": False, "texts": texts}
    result = edit(model, tokenizer, [request], EMMET(ridge=0.01), **how)

    @contextmanager
    def unedited():
        result.remove(model)
        try:
            yield
        finally:
            result.insert(model)

    return find_decoder(model), tokenizer, unedited


def measured(edited, *tests, settings=SETTINGS, after=True, **changes):
    """The record, the figures and the counts of an edit with these tests."""
    decoder, tokenizer, unedited = edited
    fields = {"subject": SUBJECT, "prompt": FACT["prompt"], "target_new": NEW, "target_true": OLD}
    request, metrics = EditRequest(**{**fields, **changes}, ripples=tests), RippleMetrics(settings)

    def measure(before):
        records = evaluate(decoder, tokenizer, [request], EditMetrics(), settings)
        metrics.measure(decoder, tokenizer, [request], records, before)
        return records[0], metrics.compute(), metrics.section()

    if after:
        return measure(unedited)
    with unedited():
        return measure(None)


def test_what_the_model_says_before_and_after(edited):
    tests = (
        ripple("subject_aliasing", query(REWORDED, "nothing like it", NEW)),
        ripple("reasoning", query(REWORDED, OLD)),
        ripple("relation_specificity", query(PLAYS, INSTRUMENT), kept=True),
    )
    _, before, counts = measured(edited, *tests, after=False)
    assert not counts and "ripple_reasoning_score" not in before
    said = {"subject_aliasing": 0.0, "reasoning": 1.0, "relation_specificity": 1.0}
    assert {axis: before[f"ripple_{axis}_said"] for axis in said} == said
    record, after, counts = measured(edited, *tests)
    said = {"subject_aliasing": 1.0, "reasoning": 0.0, "relation_specificity": 1.0}
    assert {axis: after[f"ripple_{axis}_said"] for axis in said} == said
    assert {axis: after[f"ripple_{axis}_score"] for axis in said} == said
    assert after["ripple_relation_specificity_unchanged"] == after["ripple_relation_specificity_token_accuracy"] == 1
    assert after["ripple_portability_said"] == 0.5 and after["ripple_portability_said_n"] == 1
    assert "ripple_subject_aliasing_unchanged" not in after
    none = {"edit_failed": 0, "condition_unmet": 0, "unanswered": 0}
    assert counts["subject_aliasing"] == {"tests": 1, "passed": 1, "failed": 0, **none}
    assert counts["reasoning"] == {"tests": 1, "passed": 0, "failed": 1, **none}
    assert [entry["axis"] for entry in record["ripples"]] == list(said)
    assert NEW in record["ripples"][0]["queries"][0]["text"]
    assert ripple_figures(record["ripples"])["reasoning"]["said"] == 0


def test_token_accuracy_is_that_of_the_usual_forms(edited):
    decoder, tokenizer, _ = edited
    _, after, _ = measured(edited, ripple("reasoning", Query(REWORDED, ((NEW, "x"), (OLD,)))))
    shares = []
    for answer in (NEW, OLD):
        ids = torch.tensor([tokenizer(f"{REWORDED} {answer}")["input_ids"]])
        start = len(tokenizer(REWORDED)["input_ids"])
        with torch.no_grad():
            predicted = decoder.model(input_ids=ids).logits[0, start - 1 : -1].argmax(-1)
        shares.append(float((predicted == ids[0, start:]).double().mean()))
    assert shares[0] == 1 > shares[1]
    assert after["ripple_reasoning_token_accuracy"] == pytest.approx(sum(shares) / 2)
    # Only one of both answers is said, and all have to be.
    assert after["ripple_reasoning_said"] == 0 and "ripple_reasoning_exact" not in after


def test_all_queries_or_any(edited):
    right, wrong = query(REWORDED, NEW), query(REWORDED, OLD)
    found = {
        (passes, len(queries)): measured(edited, ripple("multi_hop", *queries, passes=passes))[1][
            "ripple_multi_hop_score"
        ]
        for passes in ("all", "any")
        for queries in ((right, wrong), (right, right, right))
    }
    assert found == {("all", 2): 0, ("any", 2): 1, ("all", 3): 1, ("any", 3): 1}
    assert measured(edited, ripple("multi_hop", wrong, wrong, passes="any"))[1]["ripple_multi_hop_score"] == 0


def test_a_test_counts_only_if_its_conditions_held_before_and_the_edit_succeeded(edited):
    passing = query(REWORDED, NEW)
    met, unmet = query(OTHERS, OTHER.answer), query(OTHERS, "violinist")
    old = query(PROMPT, OLD)

    def counts(one, **changes):
        _, figures, section = measured(edited, one, **changes)
        (name,) = (name for name, number in section["reasoning"].items() if number and name != "tests")
        assert figures["ripple_reasoning_said"] == 1  # whatever the conditions are
        assert ("ripple_reasoning_score" in figures) == (name in ("passed", "failed"))
        return name

    assert counts(ripple("reasoning", passing, conditions=(met,))) == "passed"
    assert counts(ripple("reasoning", passing, conditions=(met, unmet))) == "condition_unmet"
    # The unedited model is asked: the edited one says the old answer no more.
    assert counts(ripple("reasoning", passing, conditions=(old,))) == "passed"
    assert counts(ripple("reasoning", passing, unknown=(old,))) == "condition_unmet"
    assert counts(ripple("reasoning", passing, unknown=(query(PROMPT, NEW),))) == "passed"
    assert counts(ripple("reasoning", passing), target_new="violinist") == "edit_failed"
    without = EvaluationSettings(ripple_tokens=6, generated_match=False)
    assert counts(ripple("reasoning", passing), settings=without) == "passed"
    assert counts(ripple("reasoning", passing), settings=without, target_new="violinist") == "edit_failed"


def test_without_an_answer_the_unedited_models_counts(edited):
    kept, lost = ripple("forgetfulness", query(PLAYS), kept=True), ripple("forgetfulness", query(PROMPT), kept=True)
    record, after, _ = measured(edited, kept, lost)
    assert after["ripple_forgetfulness_unchanged"] == after["ripple_forgetfulness_score"] == 0.5
    assert not {"ripple_forgetfulness_said", "ripple_forgetfulness_token_accuracy"} & set(after)
    (asked,) = record["ripples"][1]["queries"]
    assert OLD in asked["before"] and NEW in asked["text"]
    assert "ripple_portability_score" not in after
    assert measured(edited, kept, after=False)[1] == {}


def test_of_an_empty_reply_nothing_is_kept(edited):
    decoder, tokenizer, unedited = edited
    # A model that ends its text at once replies with nothing.
    end = decoder.model.generation_config.eos_token_id
    kept, silent = ripple("forgetfulness", query(PLAYS), kept=True), ripple("unrelated", query(OTHERS), kept=True)
    with unedited():
        ids = torch.tensor([tokenizer(OTHERS)["input_ids"]])
        first = int(decoder.model(input_ids=ids).logits[0, -1].argmax())
    decoder.model.generation_config.eos_token_id = first
    try:
        record, after, counts = measured(edited, kept, silent)
    finally:
        decoder.model.generation_config.eos_token_id = end
    (asked,) = record["ripples"][1]["queries"]
    assert asked["before"] == asked["text"] == "" and asked["unchanged"] is None
    assert after["ripple_forgetfulness_unchanged"] == 1
    assert not {"ripple_unrelated_unchanged", "ripple_unrelated_score"} & set(after)
    assert counts["unrelated"]["condition_unmet"] == counts["unrelated"]["unanswered"] == 1
    (drawn,) = tables({"before": {}, "after": after}, counts)
    assert drawn.caption == "1 test of what is kept does not count, as the unedited model replies with nothing"


def test_kept_answers_are_compared_with_the_unedited_models_tokens(edited):
    decoder, tokenizer, unedited = edited

    def predicted():
        ids, start = torch.tensor([tokenizer(f"{PROMPT} {OLD}")["input_ids"]]), len(tokenizer(PROMPT)["input_ids"])
        with torch.no_grad():
            return decoder.model(input_ids=ids).logits[0, start - 1 : -1].argmax(-1)

    now = predicted()
    with unedited():
        before = predicted()
    _, after, _ = measured(edited, ripple("forgetfulness", query(PROMPT, OLD), kept=True))
    agreed = float((now == before).double().mean())
    assert agreed < 1 and after["ripple_forgetfulness_unchanged"] == pytest.approx(agreed)


def test_exact_is_the_answer_alone(edited):
    _, after, _ = measured(
        edited, ripple("reasoning", query(REWORDED, NEW)), ripple("multi_hop", query(OTHERS, "violinist"))
    )
    assert after["ripple_reasoning_exact"] == 1 and after["ripple_multi_hop_exact"] == 0


def test_nothing_is_asked_where_records_bring_nothing_or_it_is_switched_off(edited):
    record, figures, section = measured(edited)
    assert "ripples" not in record and not figures and not section
    off = EvaluationSettings(ripples=False)
    record, figures, _ = measured(edited, ripple("reasoning", query(REWORDED, NEW)), settings=off)
    assert "ripples" not in record and not figures


def test_choices_decide_what_is_said(edited):
    for gold, right in ((NEW, 1), (OLD, 0)):
        test = ripple("yes_no", Query(REWORDED, ((gold,),), (OLD, NEW)))
        assert measured(edited, test)[1]["ripple_yes_no_said"] == right
    # Further words are no answer: only a choice is.
    more = EvaluationSettings(match_tokens=6, ripple_tokens=30)
    (said,) = measured(edited, ripple("yes_no", query(REWORDED, NEW)), settings=more)[0]["ripples"][0]["queries"]
    first, later = said["text"].split()[0].strip("."), said["text"].split()[-1].strip(".")
    for choices, right in (((), 1), ((later, first), 0)):
        test = ripple("yes_no", Query(REWORDED, ((later,),), choices))
        assert measured(edited, test, settings=more)[1]["ripple_yes_no_said"] == right


def test_figures_are_named_described_and_shown(edited):
    tests = ripple("reasoning", query(REWORDED, NEW)), ripple("forgetfulness", query(PLAYS, INSTRUMENT), kept=True)
    _, before, _ = measured(edited, *tests, after=False)
    _, after, counts = measured(edited, *tests)
    names = [name for name in after if not name.endswith(("_stderr", "_n"))]
    assert len(names) == 13 and all(description(f"edit/{name}") for name in names)
    assert "reason from the edited fact" in description("edit/ripple_reasoning_said")
    assert "tests of odd things" in description("edit/ripple_odd_things_said")
    assert axis_of("ripple_multi_hop_rouge_l") == ("multi_hop", "rouge_l") and axis_of("ripple_x") is None
    assert all(quantity(name).factor == 100 and not quantity(name).lower_is_better for name in names)
    (drawn,) = tables({"before": before, "after": after}, counts)
    rows = list(zip(*(column._cells for column in drawn.columns), strict=True))
    assert [row[0] for row in rows] == ["reasoning", "forgetfulness", "portability"]
    assert rows[0][1] == "0.0 -> 100.0" and rows[0][-1] == "1 of 1"
    assert list(tables({"after": {"S": 1.0}}, {})) == []
    request = make_request(ripples=tests)
    assert {name for name in measurable([request], SETTINGS) if name.startswith("ripple")} == set(names)


def test_prompts_that_leave_no_room_are_refused(tiny_tokenizer):
    request = make_request(ripples=[ripple("reasoning", query("x " * 200, "y"))])
    metrics = RippleMetrics(SETTINGS)
    with pytest.raises(EditError, match=r"record 7: the prompt .* of a test has .*`evaluation\.ripples` to false"):
        metrics.check([request], tiny_tokenizer, 64)
    metrics.check([request], tiny_tokenizer, None)
    RippleMetrics(EvaluationSettings(ripples=False)).check([request], tiny_tokenizer, 64)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Query(" "), "the prompt of a test must be a text"),
        (lambda: Query("x", (("",),)), "must be lists of texts that are not empty"),
        (lambda: Query("x", ((),)), "must be lists of texts that are not empty"),
        (lambda: Query("x", "y"), "must be lists of texts that are not empty, got 'y'"),
        (lambda: ripple("Reasoning", query("x", "y")), "the axis of a test must be a name of small letters"),
        (lambda: ripple("portability", query("x", "y")), "the axis of a test"),
        (lambda: ripple("reasoning"), "a test of reasoning asks nothing"),
        (lambda: ripple("reasoning", query("x")), "'x' has no answer, so nothing says what is right"),
        (lambda: ripple("reasoning", query("x"), kept=True, conditions=(query("z"),)), "'z' has no answer"),
        (lambda: ripple("reasoning", query("x", "y"), passes="some"), "`passes` must be all or any, got 'some'"),
        (lambda: Ripple("reasoning", ["x"]), "`queries` must be a list of `Query`"),
        (lambda: make_request(ripples=["x"]), "record 7: `ripples` must be a list of `Ripple`"),
        (lambda: ripple("reasoning", query("x", "y"), edits="Ann"), "`edits` must be a list of pairs"),
        (lambda: ripple("reasoning", query("x", "y"), edits=(("Ann",),)), "`edits` must be a list of pairs"),
    ],
)
def test_bad_tests_are_refused(make, message):
    with pytest.raises(EditError, match=message):
        make()


def test_a_repeated_edit_keeps_what_it_tests():
    one, two = ripple("reasoning", query("x", "y")), ripple("multi_hop", query("z", "y"))
    requests = [make_request(ripples=tests) for tests in ([one], [one, two], [])]
    (kept,) = distinct([*requests])
    assert kept.ripples == (one, two)
    assert distinct(requests[:1])[0] is requests[0]


def test_a_chat_is_asked_as_it_is_asked_the_edits(edited):
    one = ripple("reasoning", query("Rome is in", "Italy"), query("Where is Rome?", "Italy"))
    asked = as_question(make_request(ripples=[one]))
    first, second = asked.ripples[0].queries
    assert first.prompt.endswith("Rome is in") and first.prompt != "Rome is in" and second.prompt == "Where is Rome?"
    assert asked.lead_ins[first.prompt] == "Rome is in" and second.prompt not in asked.lead_ins
