"""The generated world is deterministic and keeps its promises about names, wordings and records."""

import random

import pytest
from transformers import PreTrainedTokenizerBase

from lightning_edit.tiny import World
from lightning_edit.tiny.tokenizer import build_tokenizer
from lightning_edit.tiny.vocabulary import FILLER

RECORD_KEYS = {
    "case_id",
    "subject",
    "prompt",
    "target_new",
    "target_true",
    "paraphrase_prompts",
    "neighborhood_prompts",
    "attribute_prompts",
    "generation_prompts",
}


@pytest.fixture(scope="module")
def world() -> World:
    return World.generate()


@pytest.fixture(scope="module")
def tokenizer(world: World) -> PreTrainedTokenizerBase:
    return build_tokenizer(world)


@pytest.fixture(scope="module")
def truth(world: World) -> dict[str, str]:
    """The true answer to every complete prompt of the world, whatever its wording."""
    return {
        template.format(fact.subject): fact.answer
        for fact in world.facts
        for template in world.relation(fact.relation).templates
    }


def test_the_same_seed_gives_the_same_world(world: World) -> None:
    assert World.generate() == world
    assert World.generate(seed=1) != world
    assert World.generate().sentences(3) == world.sentences(3)
    assert world.sentences(3) != world.sentences(4)
    assert World.generate().records(20, seed=5) == world.records(20, seed=5)
    assert world.records(20, seed=5) != world.records(20, seed=6)


def test_generating_a_world_leaves_the_global_seed_alone(world: World) -> None:
    random.seed(0)
    expected = random.random()
    random.seed(0)
    World.generate().records(5, seed=1)
    world.sentences()
    assert random.random() == expected


def test_size(world: World) -> None:
    assert len(set(world.subjects)) == len(world.subjects) >= 400
    assert len(world.relations) == 5
    assert len(world.facts) == len({(f.subject, f.relation) for f in world.facts}) == 5 * len(world.subjects)
    for relation in world.relations:
        assert len(relation.templates) == len(set(relation.templates)) == 5
        assert 20 <= len(set(relation.answers)) == len(relation.answers) <= 40


@pytest.mark.parametrize("subjects", [0, 20, 50, -40, 4040])
def test_unusable_numbers_of_subjects_are_refused(subjects: int) -> None:
    with pytest.raises(ValueError, match="multiple of 40"):
        World.generate(subjects=subjects)


@pytest.mark.parametrize("subjects", [40, 80, 1200])
def test_worlds_of_other_sizes(subjects: int) -> None:
    world = World.generate(seed=2, subjects=subjects)
    assert len(set(world.subjects)) == subjects
    assert len(world.records(subjects)) == subjects


def test_each_template_has_one_place_for_the_subject_and_ends_where_the_answer_comes(world: World) -> None:
    for relation in world.relations:
        for template in relation.templates:
            assert template.count("{}") == template.count("{") == template.count("}") == 1
            assert template == template.strip()
            assert template[-1].isalpha()


@pytest.mark.parametrize("word", ["The", "Therefore", "Because", "I", "You"])
def test_filler_starts_with_the_words_that_seed_context_prefixes(word: str) -> None:
    assert sum(pattern.split()[0] == word for pattern in FILLER) >= 3


@pytest.mark.slow
def test_only_the_last_token_of_a_name_tells_whose_it_is(world: World, tokenizer: PreTrainedTokenizerBase) -> None:
    for before in ("", "I met", "It was so."):
        skipped = len(tokenizer(before)["input_ids"])
        separator = " " if before else ""
        names = [tuple(tokenizer(before + separator + name)["input_ids"][skipped:]) for name in world.subjects]
        assert len(set(names)) == len(names)
        assert all(len(name) >= 3 for name in names)
        for length in range(1, max(map(len, names))):
            prefixes = [name[:length] for name in names]
            assert all(prefixes.count(prefix) >= 2 for prefix in set(prefixes))


def test_answers_are_one_or_two_tokens(world: World, tokenizer: PreTrainedTokenizerBase) -> None:
    for relation in world.relations:
        lengths = {len(tokenizer(" " + answer)["input_ids"]) for answer in relation.answers}
        assert len(lengths) == 1
        assert lengths <= {1, 2}


def test_held_out_wordings_are_in_no_sentence(world: World) -> None:
    text = "\n".join(world.sentences(seed=7))
    for fact in world.facts:
        assert len(fact.held_out) == 2
        assert 0 not in fact.held_out
        kept, held_out = world.prompts(fact, held_out=False), world.prompts(fact, held_out=True)
        assert len(kept) == 3
        assert all(f"{prompt} {fact.answer}." in text for prompt in kept)
        assert not any(prompt in text for prompt in held_out)


def test_each_wording_is_in_the_text_with_some_subject(world: World) -> None:
    text = "\n".join(world.sentences())
    for relation in world.relations:
        for template in relation.templates:
            assert any(template.format(subject) in text for subject in world.subjects)


def test_the_text_says_one_stable_thing_of_every_subject_that_is_no_relation(world: World) -> None:
    sentences = set(world.sentences(seed=0)) & set(world.sentences(seed=1))
    for subject, kind in zip(world.subjects, world.kinds, strict=True):
        assert f"{subject} is a {kind}." in sentences
        assert not any(kind in relation.answers for relation in world.relations)


@pytest.mark.parametrize("n", [0, 1, 64, 400])
def test_records(world: World, truth: dict[str, str], n: int) -> None:
    records = world.records(n, seed=n)
    assert [record["case_id"] for record in records] == list(range(n))
    assert len({record["subject"] for record in records}) == n
    edited = {record["prompt"].format(record["subject"]) for record in records}
    for record in records:
        rewrite = record["prompt"].format(record["subject"])
        assert set(record) == RECORD_KEYS
        assert record["prompt"].count("{}") == 1
        assert truth[rewrite] == record["target_true"] != record["target_new"]
        assert record["target_new"] == record["target_new"].strip()
        assert len(record["paraphrase_prompts"]) == 4
        assert rewrite not in record["paraphrase_prompts"]
        assert all(truth[prompt] == record["target_true"] for prompt in record["paraphrase_prompts"])
        assert record["neighborhood_prompts"] and record["generation_prompts"]
        assert all(truth[prompt] == record["target_true"] for prompt in record["neighborhood_prompts"])
        assert all(truth[prompt] == record["target_new"] for prompt in record["attribute_prompts"])
        assert not edited & {*record["neighborhood_prompts"], *record["attribute_prompts"]}


def test_neighbors_of_a_small_batch_are_subjects_that_no_record_edits(world: World) -> None:
    records = world.records(64, seed=0)
    edited = {record["subject"] for record in records}
    for record in records:
        assert not any(subject in prompt for prompt in record["neighborhood_prompts"] for subject in edited)


@pytest.mark.parametrize("n", [-1, 401])
def test_impossible_numbers_of_records_are_refused(world: World, n: int) -> None:
    with pytest.raises(ValueError, match="from 0 to the 400 subjects"):
        world.records(n)
