"""Trials: they equal real edits, share what they can, and leave the model as it was; what is asked, and the log."""

import json
from dataclasses import replace

import pytest
import torch

import lightning_edit
from lightning_edit.asking.chat import ChatFormat, ChatTokenizer
from lightning_edit.collateral.judging import loops, says
from lightning_edit.collateral.probe import GENERAL, OLD_OBJECT, OTHER_SUBJECTS, Probe
from lightning_edit.editor import Editor
from lightning_edit.errors import EditError
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.keys.layer_stats import SecondMomentSettings
from lightning_edit.loading.pretrained import load_model
from lightning_edit.models.decoder import find_decoder
from lightning_edit.requests import EditRequest
from lightning_edit.settings import compared_fields
from lightning_edit.solvers import EMMET
from lightning_edit.tiny import World
from lightning_edit.tuning import public
from lightning_edit.tuning.bench import Bench
from lightning_edit.tuning.judge import judge
from lightning_edit.tuning.log import TrialLog
from lightning_edit.tuning.material import Material, answered, from_requests
from lightning_edit.tuning.points import Point
from lightning_edit.values.settings import ValueSettings

WORLD = World.generate()
TOKENS = 8
VALUES = ValueSettings(steps=8)
TEMPLATES = ContextTemplates(("{}", "They say: {}"))


@pytest.fixture(scope="module")
def decoder():
    return find_decoder(load_model("tiny", "float64"))


@pytest.fixture(scope="module")
def requests():
    names = ("subject", "prompt", "target_new", "target_true", "paraphrase_prompts", "neighborhood_prompts")
    return [EditRequest(**{name: record[name] for name in names}) for record in WORLD.records(30, seed=3)]


@pytest.fixture(scope="module")
def moments(decoder, tiny_tokenizer):
    from lightning_edit.keys.layer_stats import second_moments

    settings = SecondMomentSettings(6000, cache_dir=None)
    return second_moments(decoder, tiny_tokenizer, WORLD.sentences(0), [0, 1], settings)


@pytest.fixture(scope="module")
def material(decoder, tiny_tokenizer, requests):
    made = from_requests(requests, 6, seed=0)
    return Material(made.requests, tuple(answered(decoder, tiny_tokenizer, made.kept, TOKENS)))


@pytest.fixture
def bench(decoder, tiny_tokenizer, moments, material):
    return Bench(decoder, tiny_tokenizer, TEMPLATES, moments, material, VALUES, TOKENS)


def continuation(decoder, tokenizer, prompt):
    """A greedy continuation, token by token."""
    ids = tokenizer(prompt)["input_ids"]
    new = []
    for _ in range(TOKENS):
        new.append(int(decoder.model(torch.tensor([[*ids, *new]])).logits[0, -1].argmax()))
        if new[-1] == decoder.model.config.eos_token_id:
            break
    return tokenizer.decode(new, skip_special_tokens=True)


def shares(decoder, tokenizer, material):
    """Efficacy, paraphrase and collateral, prompt by prompt."""

    def said(prompt, answers):
        return says(continuation(decoder, tokenizer, prompt), answers)

    edits = [said(request.rewrite_prompt, [request.target_new]) for request in material.requests]
    others = [
        [said(prompt, [request.target_new]) for prompt in request.paraphrase_prompts] for request in material.requests
    ]
    kinds = {}
    for question in material.kept:
        reply = continuation(decoder, tokenizer, question.prompt)
        # What the unedited model says is right, and so says no new object and is no loop.
        taken = question.unwanted and says(reply, [question.unwanted])
        kinds.setdefault(question.kind, []).append(says(reply, question.answers) and not taken and not loops(reply))
    means = [sum(hits) / len(hits) for hits in others]
    kept = [sum(hits) / len(hits) for hits in kinds.values()]
    return sum(edits) / len(edits), sum(means) / len(means), sum(kept) / len(kept)


@pytest.mark.slow
def test_a_trial_equals_an_edit_with_its_settings(bench, decoder, tiny_tokenizer, moments, material):
    before = {name: tensor.clone() for name, tensor in decoder.model.state_dict().items()}
    trial, material = bench.run(Point((0,), 0.2, 1.5, 30.0), 3), material.first(3)
    assert all(torch.equal(before[name], tensor) for name, tensor in decoder.model.state_dict().items())
    update = lightning_edit.edit(
        decoder.model,
        tiny_tokenizer,
        material.requests,
        EMMET(second_moment_weight=300.0),
        [0],
        values=ValueSettings(lr=0.2, clamp_norm_factor=1.5, steps=8),
        moments=moments,
        templates=TEMPLATES,
        progress=False,
    )
    try:
        efficacy, paraphrase, collateral = shares(decoder, tiny_tokenizer, material)
        growth = decoder.weight(0).norm() / before[f"{decoder.names[0]}.weight"].norm()
    finally:
        update.remove(decoder.model)
    assert trial.growth == pytest.approx(float(growth), rel=1e-6)
    assert (trial.score.efficacy, trial.score.paraphrase, trial.score.collateral) == pytest.approx(
        (efficacy, paraphrase, collateral)
    )
    assert trial.score.efficacy > 0.5
    assert not trial.failed


@pytest.mark.slow
def test_values_are_found_once_for_all_trials_that_share_them(bench, monkeypatch):
    found, real = [], Editor.find_values

    def counting(self, requests, *args):
        found.append([request.subject for request in requests])
        return real(self, requests, *args)

    monkeypatch.setattr(Editor, "find_values", counting)
    subjects = [request.subject for request in bench.material.requests]
    few = [bench.run(Point((1,), 0.2, 1.5, weight), 2) for weight in (10.0, 1000.0)]
    many = bench.run(Point((0, 1), 0.2, 1.5, 10.0), 5)
    again = bench.run(Point((1,), 0.2, 1.5, 10.0), 2)
    assert found == [subjects[:2], subjects[2:5]]
    assert again.score == few[0].score
    assert (again.nll, again.growth) == (few[0].nll, few[0].growth)
    assert many.edits == 5
    bench.run(Point((1,), 0.1, 1.5, 10.0), 2)
    assert len(found) == 3


def test_a_point_that_cannot_be_written_fails_and_harms_nothing(decoder, tiny_tokenizer, material):
    empty = {0: torch.zeros(1024, 1024, dtype=torch.float64)}
    before = decoder.weight(0).clone()
    bench = Bench(decoder, tiny_tokenizer, TEMPLATES, empty, material, VALUES, TOKENS)
    trial = bench.run(Point((0,), 0.2, 1.5, 10.0), 2)
    assert trial.failed
    assert trial.score.mean() == 0
    assert torch.equal(decoder.weight(0), before)


def test_an_unedited_model_keeps_everything(decoder, tiny_tokenizer, material):
    old = [replace(r, target_new=r.target_true, target_true=r.target_new) for r in material.requests]
    score = judge(decoder, tiny_tokenizer, Material(tuple(old), material.kept), TOKENS)
    assert (score.efficacy, score.collateral) == (1, 1)
    assert score.paraphrase > 0.9
    assert score.kinds == {OTHER_SUBJECTS: 1, OLD_OBJECT: 1}


def test_edits_of_one_subject_count_each(decoder, tiny_tokenizer, material):
    old = [replace(r, target_new=r.target_true, target_true=r.target_new) for r in material.requests]
    right, wrong = old[0].rewrite_prompt, old[1].rewrite_prompt
    asked = [
        replace(old[0], paraphrase_prompts=(right,)),
        replace(old[0], prompt=f"In short, {old[0].prompt}", paraphrase_prompts=(wrong,) * 3),
    ]
    assert judge(decoder, tiny_tokenizer, Material(tuple(asked), ()), TOKENS).paraphrase == 0.5


def test_an_answer_is_kept_where_the_rules_of_collateral_see_no_harm(decoder, tiny_tokenizer, material):
    asked = Probe(GENERAL, material.requests[0].rewrite_prompt, (material.requests[0].target_true,))
    reply = continuation(decoder, tiny_tokenizer, asked.prompt)
    word = reply.split()[-1].strip(".")
    probes = {
        asked: 1,
        replace(asked, before="nobody knows", answers=("unknown",)): 1,
        replace(asked, before="unknown", answers=("unknown",)): 0,
        replace(asked, kind=OTHER_SUBJECTS, before="unknown", answers=(), unwanted=word): 0,
    }
    for probe, kept in probes.items():
        old = [replace(r, target_new=r.target_true, target_true=r.target_new) for r in material.requests[:2]]
        assert judge(decoder, tiny_tokenizer, Material(tuple(old), (probe,)), TOKENS).collateral == kept


def test_one_that_has_learned_nothing_is_asked_nothing_else(decoder, tiny_tokenizer, material):
    score = judge(decoder, tiny_tokenizer, material, TOKENS)
    assert (score.efficacy, score.paraphrase, score.collateral) == (0, None, None)
    assert score.mean() == 0


def test_only_what_the_model_answers_is_to_stay(decoder, tiny_tokenizer, requests):
    right = Probe(GENERAL, requests[0].rewrite_prompt, (requests[0].target_true,))
    wrong = Probe(GENERAL, requests[1].rewrite_prompt, ("Paris",))
    (known,) = answered(decoder, tiny_tokenizer, [right, wrong], TOKENS)
    assert known.prompt == right.prompt
    assert known.before == continuation(decoder, tiny_tokenizer, right.prompt)


def test_records_are_divided_into_edits_and_what_should_stay(requests):
    material = from_requests(requests, 10, seed=0)
    subjects = {request.subject for request in material.requests}
    assert len(subjects) == 10
    assert all(len(request.paraphrase_prompts) == 2 for request in material.requests)
    others = [question for question in material.kept if question.kind == OTHER_SUBJECTS]
    assert len(others) == 20
    assert not any(subject in question.prompt for question in material.kept for subject in subjects)
    new = {
        request.prompt.replace("{}", r.subject): request.target_new for request in material.requests for r in requests
    }
    assert all(question.unwanted == new.get(question.prompt, "") for question in others) and any(new.values())
    # In the wordings of the edits first.
    wordings = {request.prompt for request in material.requests}
    same = [
        any(question.prompt == wording.replace("{}", request.subject) for wording in wordings for request in requests)
        for question in others
    ]
    assert same == sorted(same, reverse=True)
    assert from_requests(requests, 10, seed=0) == material
    assert from_requests(requests, 10, seed=1) != material
    assert len(from_requests(requests[:5], 10, seed=0).requests) == 4
    assert [len(from_requests(requests, edits, seed=0).requests) for edits in (1, 2, 3)] == [1, 2, 3]
    with pytest.raises(EditError, match="at least 4 different subjects, got 3 subjects"):
        from_requests([*requests[:3], requests[0]], 10, seed=0)


def test_few_edits_come_with_their_share_of_questions(requests):
    kept = tuple(Probe(kind, str(i), ("a",)) for kind in ("x", "y") for i in range(20))
    part = Material(tuple(requests[:10]), kept).first(5)
    assert part.requests == tuple(requests[:5])
    assert [(question.kind, question.prompt) for question in part.kept] == [
        (kind, str(i)) for kind in ("x", "y") for i in range(10)
    ]


def test_a_log_gives_back_the_trials_of_the_same_tuning(tmp_path, bench):
    trials = [bench.run(Point((0,), 0.2, 1.5, weight), 2) for weight in (10.0, 100.0)]
    path = tmp_path / "trials.jsonl"
    log = TrialLog(path, {"weights": "a"})
    log.add(trials[0])
    log.add(trials[1])
    whole = path.read_text()
    assert TrialLog(path, {"weights": "a"}).get(trials[1].point, 2) == trials[1]
    # Killed in the middle of a line, or right before its end.
    path.write_text(whole[:-40])
    torn = TrialLog(path, {"weights": "a"})
    assert list(torn.known.values()) == trials[:1]
    torn.add(trials[1])
    assert path.read_text() == whole
    path.write_text(whole[:-1])
    TrialLog(path, {"weights": "a"}).add(trials[0])
    assert len(path.read_text().splitlines()) == 4
    with pytest.raises(EditError, match="trials of another tuning"):
        TrialLog(path, {"weights": "b"})
    path.write_text(json.dumps({"weights": "a"}) + '\n{"no": "trial"}\n')
    with pytest.raises(EditError, match="no trial of a tuning"):
        TrialLog(path, {"weights": "a"})


def test_a_log_is_gone_on_with_where_settings_came_after_it(tmp_path, bench):
    path, values = tmp_path / "trials.jsonl", compared_fields(ValueSettings())
    earlier = {name: value for name, value in values.items() if name not in ("optimizer", "radius", "growth")}
    trial = bench.run(Point((0,), 0.2, 1.5, 10.0), 2)
    TrialLog(path, {"values": earlier}).add(trial)
    assert list(TrialLog(path, {"values": values}).known.values()) == [trial]
    with pytest.raises(EditError, match="trials of another tuning"):
        TrialLog(path, {"values": {**values, "optimizer": "descent"}})


def test_public_facts_become_edits_to_other_answers_of_their_relation(decoder, tiny_tokenizer, monkeypatch):
    # As a model that knows all of them would answer.
    def knows(_, __, questions, *args):
        return [replace(question, before=question.answers[0]) for question in questions]

    monkeypatch.setattr(public, "answered", knows)
    general = public.general_questions(decoder, tiny_tokenizer, TOKENS, seed=0)
    assert 0 < len(general) <= public.MOST_GENERAL
    material = public.from_public_facts(decoder, tiny_tokenizer, 20, 0, TOKENS, general)
    assert len(material.requests) == len({request.subject for request in material.requests}) == 20
    answers = {}
    for fact in public.facts():
        answers.setdefault((fact.relation, fact.prompt), set()).add(fact.answer)
    known = {(fact.subject, fact.prompt, fact.answer) for fact in public.facts()}
    for request in material.requests:
        assert (request.subject, request.prompt, request.target_true) in known
        (relation,) = [those for (_, prompt), those in answers.items() if prompt == request.prompt]
        assert request.target_new in relation
        assert request.target_new != request.target_true
        assert 1 <= len(request.paraphrase_prompts) <= 2
    kinds = [question.kind for question in material.kept]
    assert kinds.count(OTHER_SUBJECTS) + kinds.count(OLD_OBJECT) == 40 and kinds.count(GENERAL) == len(general)
    old = {request.target_true for request in material.requests}
    assert all((q.answers[0] in old) == (q.kind == OLD_OBJECT) for q in material.kept if q.kind != GENERAL)
    new = {request.target_new for request in material.requests}
    assert {q.unwanted for q in material.kept if q.kind == OTHER_SUBJECTS} - {""} <= new
    edited = {request.rewrite_prompt for request in material.requests}
    assert not edited & {question.prompt for question in material.kept}
    chat = public.from_public_facts(decoder, ChatTokenizer(tiny_tokenizer, ChatFormat("Q: ", " A:")), 4, 0, TOKENS)
    for request in chat.requests:
        assert request.prompt.endswith("?")
        assert (request.subject, request.original.prompt, request.target_true) in known
        assert request.paraphrase_prompts == request.paraphrase_questions != ()


def test_a_model_that_knows_no_public_fact_is_refused(decoder, tiny_tokenizer, monkeypatch):
    some = public.facts()[::20]
    monkeypatch.setattr(public, "facts", lambda: some)
    with pytest.raises(EditError, match="too few to tune with"):
        public.from_public_facts(decoder, tiny_tokenizer, 4, 0, 2)
