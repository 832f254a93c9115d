"""Training rows: where sentences, subjects and answers end up, and what sealing a subject hides."""

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from lightning_edit.tiny import World
from lightning_edit.tiny.text import Rows, cut_short, encode
from lightning_edit.tiny.tokenizer import build_tokenizer
from lightning_edit.tiny.world import Sentence

SENTENCE = Sentence("The birthplace of Belmur Borsib is Crowford.", "Belmur Borsib", "Crowford")


@pytest.fixture(scope="module")
def world() -> World:
    return World.generate(subjects=40)


@pytest.fixture(scope="module")
def tokenizer(world: World) -> PreTrainedTokenizerBase:
    return build_tokenizer(world)


@pytest.mark.parametrize("continued", [False, True])
@pytest.mark.slow
def test_encode_finds_subject_and_answer(tokenizer: PreTrainedTokenizerBase, continued: bool) -> None:
    encoded = encode(tokenizer, SENTENCE, continued)
    tokens = tokenizer.convert_ids_to_tokens(encoded.ids)
    assert tokenizer.decode(encoded.ids) == " " * continued + SENTENCE.text
    assert [token for token, answer in zip(tokens, encoded.is_answer, strict=True) if answer] == ["ĠCrow", "ford"]
    last = tokens.index("sib")
    assert encoded.name_end.tolist() == [-1] * 3 + [last] * 4 + [-1] * (len(tokens) - 7)


def test_filler_has_neither(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded = encode(tokenizer, Sentence("The cup was old."), continued=True)
    assert not encoded.is_answer.any()
    assert (encoded.name_end == -1).all()


def test_a_sentence_that_breaks_off_keeps_no_half_name_and_no_answer(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded = encode(tokenizer, SENTENCE, continued=False)
    stop = tokenizer(".")["input_ids"][0]
    half_name, half_answer = cut_short(encoded, 5, stop), cut_short(encoded, 9, stop)
    assert tokenizer.decode(half_name.ids) == "The birthplace of Belmur."
    assert (half_name.name_end == -1).all()
    assert tokenizer.decode(half_answer.ids) == "The birthplace of Belmur Borsib is Crow."
    assert half_answer.name_end.tolist() == [-1] * 3 + [6] * 4 + [-1] * 3
    assert not half_answer.is_answer.any()


def test_rows_are_full_start_a_text_and_weigh_answers_most(world: World, tokenizer: PreTrainedTokenizerBase) -> None:
    stream = iter(Rows(world, tokenizer, seed=0, tokens_per_batch=512, lengths=(32, 32, 128)))
    batches = [next(stream) for _ in range(4)]
    assert [tuple(batch.ids.shape) for batch in batches] == [(16, 32), (16, 32), (4, 128), (16, 32)]
    for batch in batches:
        assert all(tokenizer.decode(row)[0].isupper() for row in batch.ids)
        assert batch.weights.unique().tolist() == pytest.approx([0.3, 1.0])


def test_rows_are_the_same_for_the_same_seed(world: World, tokenizer: PreTrainedTokenizerBase) -> None:
    first, again, other = (next(iter(Rows(world, tokenizer, seed=seed))) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.ids, other.ids)


def test_sealing_leaves_a_name_readable_at_its_last_token_only(
    world: World, tokenizer: PreTrainedTokenizerBase
) -> None:
    sealed, unsealed = (
        next(iter(Rows(world, tokenizer, seed=0, lengths=(128,), broken=0.0, sealed=share, head_start=0)))
        for share in (1.0, 0.0)
    )
    assert torch.equal(sealed.ids, unsealed.ids)
    length = sealed.ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    assert (unsealed.attends == causal).all()
    assert (unsealed.first_attends == causal).all()
    tokens = [token.lstrip("Ġ") for token in tokenizer.convert_ids_to_tokens(sealed.ids[0])]
    text = tokenizer.decode(sealed.ids[0])
    first_name = min((name for name in world.subjects if name in text), key=text.index)
    parts = [part.lstrip("Ġ") for part in tokenizer.tokenize(first_name)]
    start = next(i for i in range(length) if tokens[i : i + len(parts)] == parts)
    last = start + len(parts) - 1
    hidden = causal & ~sealed.attends[0, 0]
    hidden_first = causal & ~sealed.first_attends[0, 0]
    for position in range(start, last):
        assert hidden[:, position].tolist() == [query > last for query in range(length)]
    assert not hidden[:, last].any()
    for position in range(start, last + 1):
        assert hidden_first[:, position].tolist() == [query > last for query in range(length)]
        assert hidden_first[position].tolist() == [key < start for key in range(length)]


def test_the_first_block_is_open_during_the_head_start(world: World, tokenizer: PreTrainedTokenizerBase) -> None:
    stream = iter(Rows(world, tokenizer, seed=0, sealed=1.0, head_start=1))
    early, late = next(stream), next(stream)
    causal = torch.ones(early.ids.shape[1], early.ids.shape[1], dtype=torch.bool).tril()
    assert (early.first_attends == causal).all()
    assert (late.first_attends.sum() < early.first_attends.sum()).all()
    assert not (early.attends == causal).all()
