"""Probes made from edits, and the reference of a real model."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from lightning_edit import EditRequest
from lightning_edit.asking.chat import ChatFormat, ChatTokenizer
from lightning_edit.collateral import KINDS, Asking, Budget, Probe, Reference, Sources, make_reference
from lightning_edit.collateral.from_edits import FREELY, FromEdits, object_in
from lightning_edit.collateral.judging import says
from lightning_edit.datamodules import TinyWorld
from lightning_edit.loading.pretrained import load_model
from lightning_edit.models.decoder import find_decoder
from lightning_edit.probes import GeneralPrompt, PublicFact, judges, judging_prompts, subjects
from lightning_edit.requests import fact_of

CAPITALS = [
    PublicFact("capital", country, "The capital of {} is", "What is the capital of {}?", city, ("Name {}'s capital.",))
    for country, city in (("France", "Paris"), ("Italy", "Rome"), ("Peru", "Lima"))
]
SOURCES = Sources(
    [GeneralPrompt("1 + 1 =", ("2",), "arithmetic")],
    CAPITALS,
    {"countries": ["France", "Italy", "Peru", "Chile"], "towers": ["Big Ben", "Eiffel Tower"]},
)
TOWER = EditRequest("Eiffel Tower", "{} is in the city of", "Rome", "Paris", neighborhood_prompts=("The Louvre is in",))
PERU = EditRequest("Peru", "The capital of {} is", "Oslo", paraphrase_prompts=("Peru's capital:", "Lima? No,"))


@pytest.fixture
def asking(tiny_tokenizer):
    return Asking(find_decoder(load_model("tiny", "auto")), tiny_tokenizer, 8, nullcontext)


def test_an_edit_is_asked_in_three_wordings():
    made = FromEdits([TOWER, PERU], SOURCES, seed=0).reworded()
    asked = {request: [p.prompt for p in made if p.edit == request.name] for request in (TOWER, PERU)}
    assert asked[TOWER] == [wording.replace("{}", TOWER.rewrite_prompt) for wording in FREELY]
    assert asked[PERU] == ["Peru's capital:", "Lima? No,", "What is the capital of Peru?"]
    assert {(p.edit, p.answers) for p in made} == {(TOWER.name, ("Rome",)), (PERU.name, ("Oslo",))}


def test_the_reply_to_an_edit_has_room_for_its_answer(asking):
    long = replace(
        TOWER, target_new="Rome " * 40, lead_ins={TOWER.rewrite_prompt: "The Eiffel Tower is in Rome, that is"}
    )
    (probe, *_) = FromEdits([long], SOURCES, seed=0).reworded()
    tokens = [len(asking.tokenizer(text)["input_ids"]) for text in (long.target_new.strip(), probe.lead_in)]
    assert asking.room(probe) == sum(tokens) > asking.tokens + 30
    assert asking.room(Probe("reworded", "Where?", ("Rome",))) == asking.tokens == asking.room(Probe("general", "Hi"))


def test_special_tokens_are_no_part_of_what_a_model_should_say():
    shown = FromEdits(
        [replace(TOWER, target_new="Rome<end>")], SOURCES, 0, shown=lambda text: text.replace("<end>", "")
    )
    assert {probe.answers for probe in shown.reworded()} == {("Rome",)}
    assert {probe.unwanted for probe in shown.other_subjects(2)} == {"Rome"}


def test_other_subjects_are_of_the_same_kind_and_not_edited():
    made = FromEdits([TOWER, PERU], SOURCES, seed=0).other_subjects(6)
    assert {p.prompt for p in made if p.edit == TOWER.name} == {"Big Ben is in the city of"}
    countries = {p.prompt for p in made if p.edit == PERU.name}
    assert countries == {f"The capital of {country} is" for country in ("France", "Italy", "Chile")}
    assert {p.unwanted for p in made} == {"Rome", "Oslo"}


def test_the_old_object_is_asked_for_by_neighbors_and_public_facts():
    makes = FromEdits([TOWER, PERU], SOURCES, seed=0)
    old = {fact_of(TOWER): "Paris", fact_of(PERU): "Lima"}
    made = makes.old_object(old, 9)
    # Of the edit of Peru nothing else has its old object; a wording of a fact is asked if it is for judging.
    wordings = ("The capital of {} is", "What is the capital of {}?", "Name {}'s capital.")
    expected = {"The Louvre is in", *(w.format("France") for w in wordings if judges(w))}
    assert {p.prompt for p in made} == expected
    assert {(p.edit, p.answers) for p in made} == {(TOWER.name, ("Paris",))}
    near = replace(TOWER, subject="Louv", neighborhood_prompts=())
    assert "The Louvre is in" in {p.prompt for p in FromEdits([TOWER, near], SOURCES, 0).old_object(old, 9)}
    edited = replace(TOWER, subject="The Louvre", neighborhood_prompts=())
    assert "The Louvre is in" not in {p.prompt for p in FromEdits([TOWER, edited], SOURCES, 0).old_object(old, 9)}


@pytest.mark.parametrize(
    ("answer", "prompt", "expected"),
    [
        (" Lima, the capital of Peru", "The capital of Peru is", "Lima"),
        (" The Eiffel Tower is in Paris, France.", "Where is the Eiffel Tower?", "Paris"),
        (" a small town. It", "It is in", "a small town"),
        (" It is a place of which nobody has heard", "Where is it?", None),
        (" Paris", "Where in Paris is it?", None),
        ("\n", "Where is it?", None),
    ],
)
def test_an_object_is_found_in_an_answer(answer, prompt, expected):
    assert object_in(answer, prompt, ["Paris", "Lima", "Rome"]) == expected


def test_the_reference_keeps_to_the_budget_and_to_what_the_model_says(asking):
    data = TinyWorld(edits=6)
    without_true = [replace(request, target_true=None) for request in data.requests]
    for requests in (data.requests, without_true):
        made = make_reference(requests, data.sources(), Budget(40), asking, seed=0)
        count = {kind: sum(p.kind == kind for p in made.probes) for kind in KINDS}
        assert count == {"general": 20, "old_object": 5, "other_subjects": 5, "same_subject": 5, "reworded": 5}
        old = {request.name: request.target_true for request in data.requests}
        for probe in made.probes:
            # This model knows its world.
            assert probe.kind in ("same_subject", "reworded") or probe.before
            if probe.kind in ("general", "old_object"):
                assert says(probe.before, probe.answers)
            if probe.kind == "old_object":
                assert probe.answers == (old[probe.edit],)
        again = make_reference(requests, data.sources(), Budget(40), asking, seed=0)
        assert again == made == Reference.unpacked(made.packed())


@pytest.mark.parametrize("chat", [None, ChatFormat("They say that Anna lives in Paris. ", " Now:")])
def test_the_divergence_is_that_of_the_next_token(asking, tiny_tokenizer, chat):
    if chat is not None:
        asking = replace(asking, tokenizer=ChatTokenizer(tiny_tokenizer, chat))
    model = asking.decoder.model
    prompts = [probe.prompt for probe in TinyWorld(edits=4).sources().general[:5]]
    weight = model.get_output_embeddings().weight
    other = weight.detach() + 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))

    class Before:
        def __enter__(self):
            self.now = weight.detach().clone()
            weight.data.copy_(other)

        def __exit__(self, *_):
            weight.data.copy_(self.now)

    found = replace(asking, before=Before).now(prompts, [True, True, False, True, True])
    for i, (prompt, asked) in enumerate(zip(prompts, found, strict=True)):
        ids = torch.tensor([tiny_tokenizer(prompt if chat is None else chat(prompt))["input_ids"]])
        with torch.no_grad():
            now = model(ids).logits[0, -1].double().log_softmax(-1)
            with Before():
                before = model(ids).logits[0, -1].double().log_softmax(-1)
        expected = None if i == 2 else pytest.approx(float((before.exp() * (before - now)).sum()), rel=1e-3)
        assert asked.kl == expected


def test_what_does_not_fit_the_context_is_not_asked(asking):
    long = Sources([GeneralPrompt("word " * 2000, (), "long"), GeneralPrompt("A", (), "short")], [], {})
    made = make_reference(TinyWorld(edits=1).requests, long, Budget(16), asking, seed=0)
    assert [p.prompt for p in made.probes if p.kind == "general"] == ["A"]
    # What a chat puts around a prompt takes room as well.
    full = replace(asking, tokenizer=ChatTokenizer(asking.tokenizer, ChatFormat("word " * 2000, "")))
    assert asking.fits("A") and not full.fits("A")


def test_only_what_judges_is_shipped():
    shipped = Sources.shipped()
    assert all(judges(subject) for those in shipped.subjects.values() for subject in those)
    assert all(judges(fact.subject) for fact in shipped.facts)
    assert sorted(shipped.general, key=str) == sorted(judging_prompts(), key=str)
    kinds = [prompt.kind for prompt in shipped.general]
    assert kinds[: len(set(kinds))] == list(dict.fromkeys(kinds))
    assert shipped.kind_of("nobody knows it") is None
    assert all(shipped.kind_of(those[0]) == kind for kind, those in shipped.subjects.items())
    assert set(shipped.subjects) == set(subjects())
