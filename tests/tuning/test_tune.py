"""A tuning as a whole: what is planned, and that a chat is asked in its own format."""

from dataclasses import replace

import pytest
import torch

from lightning_edit.asking.chat import ChatFormat, ChatTokenizer
from lightning_edit.errors import EditError
from lightning_edit.keys.layer_stats import SecondMomentSettings, prepare_second_moments
from lightning_edit.keys.questions import read_subjects, run_questions
from lightning_edit.loading.pretrained import load_model
from lightning_edit.models.decoder import find_decoder
from lightning_edit.requests import EditRequest
from lightning_edit.solvers import MEMIT
from lightning_edit.tiny import World
from lightning_edit.tuning.points import Point
from lightning_edit.tuning.preset import settings_of
from lightning_edit.tuning.tune import TuneSettings, bench_for, make_plan

WORLD = World.generate()
SETTINGS = TuneSettings(edits=4, tokens=6)


@pytest.fixture(scope="module")
def decoder():
    return find_decoder(load_model("tiny"))


@pytest.fixture(scope="module")
def requests():
    names = ("subject", "prompt", "target_new", "target_true", "paraphrase_prompts")
    return [EditRequest(**{name: record[name] for name in names}) for record in WORLD.records(12, seed=7)]


@pytest.mark.slow
def test_a_chat_without_words_of_its_own_is_tuned_as_plain_text(decoder, tiny_tokenizer, requests):
    chat = ChatTokenizer(tiny_tokenizer, ChatFormat("", "", separator=" "))
    # Nor do sentences lead in to its answers.
    own = [
        {"question": r.prompt, "paraphrase_questions": r.paraphrase_prompts, "answer": r.target_new} for r in requests
    ]
    asked = [replace(request, **fields) for request, fields in zip(requests, own, strict=True)]
    plans = [make_plan(decoder, tiny_tokenizer, SETTINGS, requests), make_plan(decoder, chat, SETTINGS, asked)]
    assert [plan.chat for plan in plans] == [False, True]
    assert plans[0].material.kept == plans[1].material.kept
    assert plans[0].space == plans[1].space
    trials = []
    for plan, tokenizer in zip(plans, (tiny_tokenizer, chat), strict=True):
        moments = SecondMomentSettings(4000, cache_dir=None, question_share=0.0)
        bench = bench_for(decoder, tokenizer, plan, SETTINGS, WORLD.sentences(0), moments)
        trials.append(bench.run(Point((0,), 0.2, 1.5, 30.0), 4))
        assert settings_of("tiny", trials[-1], plan, "auto")["chat"] is plan.chat
    assert trials[0].score == trials[1].score
    assert trials[0].score.efficacy > 0.5
    assert trials[0].growth == pytest.approx(trials[1].growth)


@pytest.mark.slow
def test_second_moments_are_those_of_a_run(decoder, tiny_tokenizer, requests):
    settings, texts = SecondMomentSettings(4000, cache_dir=None, question_share=0.7, questions=40), WORLD.sentences(0)
    plan = make_plan(decoder, tiny_tokenizer, SETTINGS, requests, [0])
    bench = bench_for(decoder, tiny_tokenizer, plan, SETTINGS, texts, settings)
    asked = run_questions(plan.material.requests, tiny_tokenizer, ["chat"], 40, 0, read_subjects(None))
    expected = prepare_second_moments(decoder, tiny_tokenizer, texts, [0], settings, MEMIT(), 0, questions=asked)
    torch.testing.assert_close(bench.moments[0], expected[0], rtol=1e-12, atol=0)


def test_layers_that_cannot_be_edited_are_refused(decoder, tiny_tokenizer, requests):
    for layers in ([2], [0, 9], []):
        with pytest.raises(EditError, match="`--layers` must be among those that can be edited"):
            make_plan(decoder, tiny_tokenizer, SETTINGS, requests, layers)


@pytest.mark.slow
def test_all_layers_of_a_shallow_model_are_tried(decoder, tiny_tokenizer, requests):
    plan = make_plan(decoder, tiny_tokenizer, SETTINGS, requests)
    assert plan.space.layer_sets == ((0,), (1,), (0, 1))
    assert plan.space.d_in == 1024
    assert plan.effects.shape == (3,)
    assert plan.effects[0] == plan.effects.max() > 0.1
