"""Tests of several edits that belong together: they count only if all of these succeeded."""

from contextlib import nullcontext
from dataclasses import replace

import pytest

from lightning_edit import EditRequest, Query, Ripple
from lightning_edit.asking.questions import as_question
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.metrics import EditMetrics, EvaluationSettings, evaluate
from lightning_edit.metrics.ripples.figures import RippleMeans, ripple_figures
from lightning_edit.metrics.ripples.measuring import RippleMetrics
from lightning_edit.models.decoder import find_decoder
from lightning_edit.requests import fact_of
from lightning_edit.tiny import World

SETTINGS = EvaluationSettings(match_tokens=6, ripple_tokens=6)
WORLD = World.generate()
KNOWN = [fact for fact in WORLD.facts if fact.relation == "craft"][:4]


@pytest.fixture(scope="module")
def tiny():
    return find_decoder(load_model("tiny", "auto")), load_tokenizer("tiny")


def edit(place, succeeds, *tests):
    """An edit to what the embedded model says already, or to what it never says."""
    fact, prompt = KNOWN[place], WORLD.prompts(KNOWN[place], held_out=False)[0]
    new = fact.answer if succeeds else "violinist"
    return EditRequest(fact.subject, prompt.replace(fact.subject, "{}"), new, case_id=str(place), ripples=tests)


def follows(place, *edits):
    """A test that passes."""
    fact = KNOWN[place]
    prompt = WORLD.prompts(fact, held_out=False)[0]
    return Ripple("multi_hop", (Query(prompt, ((fact.answer,),)),), edits=tuple(map(fact_of, edits)))


def measured(tiny, requests, size, settings=SETTINGS):
    """What became of all tests, measured in parts of some size, and the figures."""
    metrics, records = RippleMetrics(settings), []
    for start in range(0, len(requests), size):
        part = requests[start : start + size]
        found = evaluate(*tiny, part, EditMetrics(), settings)
        metrics.measure(*tiny, part, found, nullcontext)
        records += found
    again = RippleMeans()
    for record in (record for record in records if "ripples" in record):
        again.update(ripple_figures(record["ripples"]))
    assert again.compute() == metrics.compute()
    counted = [test["counted"] for record in records for test in record.get("ripples", ())]
    section = metrics.section()["multi_hop"]
    assert section["tests"] == len(counted) and all(section[name] == counted.count(name) for name in set(counted))
    return counted, metrics.compute().get("ripple_multi_hop_score")


@pytest.mark.parametrize("settings", [SETTINGS, EvaluationSettings(ripple_tokens=6, generated_match=False)])
@pytest.mark.parametrize("size", [1, 2, 9])
def test_any_failed_edit_of_a_case_counts_however_it_is_measured(tiny, size, settings):
    failed, other, fine = edit(0, False), edit(1, True), edit(2, True)
    last = edit(3, True, follows(3, failed, edit(3, True)), follows(3, other, fine, edit(3, True)), follows(3))
    counted, score = measured(tiny, [failed, other, fine, last], size, settings)
    assert counted == ["edit_failed", "passed", "passed"] and score == 1
    # A failed edit is no failed test.
    wrong = Ripple("multi_hop", (Query("Nobody says", (("anything",),)),), edits=(fact_of(failed),))
    counted, score = measured(tiny, [failed, other, edit(3, True, wrong)], size, settings)
    assert counted == ["edit_failed"] and score is None


def test_the_edit_that_brings_a_test_counts_too(tiny):
    assert measured(tiny, [edit(0, True), edit(1, False, follows(0, edit(0, True)))], 1)[0] == ["edit_failed"]


def test_edits_of_an_earlier_measurement_do_not_count(tiny):
    metrics = RippleMetrics(SETTINGS)
    failed, last = edit(0, False), edit(1, True, follows(1, edit(0, True)))
    metrics.measure(*tiny, [failed], evaluate(*tiny, [failed], EditMetrics(), SETTINGS), nullcontext)
    metrics.reset()
    records = evaluate(*tiny, [last], EditMetrics(), SETTINGS)
    metrics.measure(*tiny, [last], records, nullcontext)
    assert records[0]["ripples"][0]["counted"] == "passed"


def test_a_chat_is_asked_other_prompts_about_the_same_edits(tiny):
    failed = replace(edit(0, False), question="What is the craft of {}?")
    requests = failed, edit(1, True, follows(1, edit(2, True)), follows(1, failed))
    asked = [as_question(request, "{}", False) for request in requests]
    assert asked[0].prompt != failed.prompt and asked[1].ripples[1].edits == (fact_of(failed),)
    assert measured(tiny, asked, 1)[0] == ["passed", "edit_failed"]
