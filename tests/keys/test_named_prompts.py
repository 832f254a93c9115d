"""Targeted preservation: keys of named prompts are added to C as a plain loop adds them; bad names are refused."""

import logging

import pytest
import torch

from lightning_edit import EMMET, EditError, probes
from lightning_edit.asking.questions import as_question
from lightning_edit.asking.tokenization import encode_prompt
from lightning_edit.callbacks import Collateral
from lightning_edit.datamodules import TinyWorld
from lightning_edit.keys.layer_stats import SecondMomentSettings, prepare_second_moments
from lightning_edit.keys.named_prompts import encode_named, named_prompts, prompts_of_worlds, said_of
from lightning_edit.loop.same_run import check_same_run
from lightning_edit.models.decoder import find_decoder
from tests.keys.test_question_moment import chat_tokenizer, keys_of
from tests.small_models import make_llama, make_request
from tests.small_runs import module
from tests.trainers import quiet_trainer

NAMES = ["neighbors", "old_objects"]


def answer_of_both_halves():
    """An old object that shipped facts of both halves have as their answer."""
    halves = {}
    for fact in probes.facts():
        halves.setdefault(fact.answer, set()).add(probes.judges(fact.subject))
    return next(answer for answer, found in halves.items() if len(found) == 2)


@pytest.fixture
def edit():
    near = ("Zed lives in", "Bo of the Eiffel Tower lives in")
    return make_request(target_true=answer_of_both_halves(), neighborhood_prompts=near)


def test_each_world_is_asked_in_its_own_way_and_nothing_that_judges(edit, tmp_path):
    file = tmp_path / "keep.txt"
    file.write_text("Who is Anna?\n\nWho is Anna?\nWhere is Rome?\n", encoding="utf-8")
    tokenizer, names = chat_tokenizer(), [*NAMES, str(file)]
    found = prompts_of_worlds([as_question(edit)], names, tokenizer, ["chat", "plain"])
    # That of an edited subject is no neighbor.
    assert found["chat"]["neighbors"] == ["Complete: Zed lives in"]
    assert found["plain"]["neighbors"] == ["Zed lives in"]
    for world in ("chat", "plain"):
        assert found[world][str(file)] == ["Who is Anna?", "Where is Rome?"]
    facts = [fact for fact in probes.facts() if fact.answer == edit.target_true]
    judging = {p for f in facts if probes.judges(f.subject) for p in (f.filled_prompt, *f.filled_questions)}
    judging |= {
        probes.filled(wording, fact.subject)
        for fact in facts
        for wording in probes.judging((fact.prompt, fact.question, *fact.rewordings))
    }
    chat, plain = (set(found[world]["old_objects"]) for world in ("chat", "plain"))
    assert chat and chat <= plain and not plain & judging
    sentences = {fact.filled_prompt for fact in facts}
    assert not chat & sentences
    groups = encode_named(found, tokenizer, None)
    texts = [text for of_name in found["plain"].values() for text in of_name]
    assert [list(text.ids) for text in groups[1]] == [encode_prompt(tokenizer.plain, text) for text in texts]
    line = said_of(found, 0.5)
    assert "weight 0.5" in line and "2 " + str(file) in line and "not of held-out ones" in line


def test_an_old_object_is_asked_about_where_it_is_a_subject_that_does_not_judge():
    kind, subject = next((k, s) for k, those in probes.subjects().items() for s in probes.preserving(those))
    prompts = named_prompts([make_request(target_true=subject)], ["old_objects"], chat=True)["old_objects"]
    assert {probes.filled(wording, subject) for wording in probes.preserving(probes.wordings()[kind])} <= set(prompts)


@pytest.mark.parametrize("source", ["text", "identity"])
def test_c_has_the_mean_moment_of_the_keys_with_its_weight(edit, source, tmp_path):
    tokenizer, model = chat_tokenizer(), make_llama(max_position_embeddings=256)
    decoder, texts = find_decoder(model), ["Anna lives in London and has an old house there."] * 20
    groups = encode_named(prompts_of_worlds([as_question(edit)], NAMES, tokenizer, ["chat", "plain"]), tokenizer, 256)
    how = {"length": 20} if source == "text" else {}
    settings = SecondMomentSettings(
        60, cache_dir=str(tmp_path), source=source, preserve=NAMES, preserve_weight=0.3, **how
    )

    def prepared(preserved):
        solver = EMMET(1.0, ridge=1.0)
        return prepare_second_moments(decoder, tokenizer, texts, [0, 1], settings, solver, 0, preserved=preserved)

    without, first, again = prepared([]), prepared(groups), prepared(groups)
    for layer in (0, 1):
        expected = without[layer].clone()
        for group in groups:
            rows = [list(text.ids) for text in group]
            begin = next(i for i, column in enumerate(zip(*rows, strict=False)) if len(set(column)) > 1)
            keys = torch.cat([keys_of(model, row, layer)[begin:] for row in rows])
            expected += 0.3 / 2 * keys.T @ keys / len(keys)
        torch.testing.assert_close(first[layer], expected, rtol=1e-9, atol=1e-12)
        assert torch.equal(first[layer], again[layer])


def test_names_that_stand_for_nothing_are_refused(edit, tmp_path):
    empty, own = tmp_path / "empty.txt", tmp_path / "own.txt"
    empty.write_text("\n \n")
    own.write_text("Where is Rome?\nThe Eiffel Tower is located in the city of\n")
    for names, message in (
        (["neighbours"], "there is no file neighbours. Each entry is neighbors, old_objects or a text file"),
        ([str(empty)], "holds no question"),
        ([str(tmp_path)], "is a folder"),
        (["neighbors", "neighbors"], "each entry must be given once"),
        ([str(own)], r"own.txt lists .*Eiffel Tower.*, which record 7 edits. Remove this line"),
    ):
        with pytest.raises(EditError, match=message):
            named_prompts([edit], names, chat=False)
    for name in NAMES:
        with pytest.raises(EditError, match=f"Leave `{name}`"):
            named_prompts([make_request()], [name], chat=False)


def test_a_run_says_what_it_preserves_and_does_not_judge_by_it(tmp_path, caplog):
    data, settings = TinyWorld(edits=2), {"tokens": 2000, "cache_dir": None}
    made = module(edits_per_update=None, second_moment=SecondMomentSettings(preserve=["neighbors"], **settings))
    runner = quiet_trainer(tmp_path, Collateral(16))
    with caplog.at_level(logging.WARNING):
        runner.fit(made, datamodule=data)
    assert "neighbors (prompts); the neighborhood figures are of prompts that were preserved" in caplog.text
    preserved = set(made.preserved["chat"]["neighbors"])
    reference = runner.callbacks[0]._reference
    assert preserved == {prompt for request in data.requests for prompt in request.neighborhood_prompts}
    assert not preserved & {probe.prompt for probe in reference.probes}
    assert any(probe.kind == "old_object" for probe in reference.probes)
    missing = module(second_moment=SecondMomentSettings(preserve=["no file.txt"], **settings))
    with pytest.raises(EditError, match=r"there is no file no file\.txt"):
        quiet_trainer(tmp_path).fit(missing, datamodule=data)
    assert missing.model is None


def test_runs_from_before_the_setting_go_on_without_it():
    def settings(**moment):
        return {"model": {"second_moment": {"tokens": 10, **moment}}}

    check_same_run(settings(), settings(preserve=[], preserve_weight=1.0))
    check_same_run(settings(), settings(preserve=["neighbors"], preserve_weight=0.0))
    with pytest.raises(EditError, match="preserve"):
        check_same_run(settings(), settings(preserve=["neighbors"], preserve_weight=1.0))
