import itertools
import random

import pytest
import torch

from lightning_edit.metrics.token_scores import score_tokens
from lightning_edit.models.decoder import find_decoder
from lightning_edit.models.hooks import frozen
from lightning_edit.models.prefixes import shared_prefixes
from lightning_edit.models.prefixes.prefix_cache import cache_texts
from lightning_edit.models.prefixes.shared_prefixes import cache_prefixes, passes, prefix_lengths
from tests.architectures import SIZES, build

# Two heads of many rows, one within the other, and a row that begins like no other.
HEADS = [[5, 6, 7, 8, 9, 10, 11], [5, 6, 7, 8, 20, 21, 22, 23, 24, 25, 26, 27]]
ROWS = [[*head, 30 + i, *range(40, 40 + i)] for i in range(4) for head in HEADS] + [[90, 91, 92]]


def tolerance(family):
    """These compute a part (softmax, rotary angles) in float32 whatever the precision of the model."""
    return 1e-6 if family in ("GPTJ", "Gemma2", "Bloom") else 1e-12


def tokens_run(rows, lengths):
    heads = {tuple(row[:length]) for row, length in zip(rows, lengths, strict=True)}
    return sum(map(len, heads)) + sum(len(row) - length for row, length in zip(rows, lengths, strict=True))


def fewest(rows):
    """By trying everything."""
    return min(tokens_run(rows, lengths) for lengths in itertools.product(*(range(len(row) + 1) for row in rows)))


def test_hardly_any_other_choice_of_heads_runs_fewer_tokens(monkeypatch):
    monkeypatch.setattr(shared_prefixes, "WORTH", 0.0)
    draw = random.Random(0)
    found, best, plain = [], [], []
    for _ in range(300):
        rows = [[draw.randrange(2) for _ in range(draw.randint(0, 5))] for _ in range(draw.randint(1, 5))]
        found.append(tokens_run(rows, prefix_lengths(rows)))
        best.append(fewest(rows))
        plain.append(sum(map(len, rows)))
    assert sum(best) <= sum(found) <= 1.01 * sum(best)
    assert all(a <= b for a, b in zip(found, plain, strict=True))
    assert sum(found) < 0.85 * sum(plain)


def test_a_beginning_that_saves_little_is_not_run_by_itself():
    rows = [[1, *range(10, 40)], [1, *range(50, 80)]]
    assert prefix_lengths(rows) == [0, 0]
    assert prefix_lengths([[1, 2, 3, 4], [1, 2, 3, 5]]) == [3, 3]
    assert prefix_lengths([]) == []


def last_states(model, inputs, batch):
    hidden = model.base_model(**inputs).last_hidden_state
    return hidden[torch.arange(len(hidden)), batch.real.sum(1) - 1]


@pytest.mark.parametrize("family", SIZES)
def test_rows_behind_their_heads_are_what_they_are_alone(family):
    model = build(family).double()
    decoder, seen = find_decoder(model), {}
    with frozen(model), torch.no_grad():
        for found in passes(decoder, ROWS, [len(row) - 1 for row in ROWS], max_tokens=24):
            states = last_states(model, found.inputs(), found.batch)
            seen |= dict(zip(found.rows, states, strict=True))
            assert found.batch.input_ids.numel() <= 24
        for i, row in enumerate(ROWS):
            alone = model.base_model(input_ids=torch.tensor([row])).last_hidden_state[0, -1]
            assert (seen[i] - alone).norm() <= tolerance(family) * alone.norm()
    assert sorted(seen) == list(range(len(ROWS)))


@pytest.mark.parametrize("family", ["GPT2", "Llama", "Gemma2", "Bloom"])
@pytest.mark.parametrize("rows", [ROWS, [*ROWS, []], [row[:7] for row in ROWS], [[]] * 2], ids=range(4))
def test_a_cache_with_shared_prefixes_is_the_cache_of_each_row_by_itself(family, rows):
    model = build(family).double()
    decoder = find_decoder(model)
    with frozen(model):
        shared = cache_prefixes(decoder, rows)
        plain = cache_texts(model, rows, len(decoder.blocks), decoder.device)
    assert shared.length == plain.length
    for a, b in zip(shared.layers, plain.layers, strict=True):
        if plain.length:
            assert (a.keys - b.keys).abs().max() <= tolerance(family)
            assert (a.values - b.values).abs().max() <= tolerance(family)


def test_each_shared_token_is_run_once():
    model, count = build("Llama"), 0

    def note(_, args):
        nonlocal count
        count += args[0].numel()

    decoder = find_decoder(model)
    assert decoder.resumption.prefixes
    handle = model.get_input_embeddings().register_forward_pre_hook(note)
    texts = [[*range(5, 65), i, 70] for i in range(20)]
    score_tokens(decoder, texts, [61] * 20)
    assert count == 60 + 20
    handle.remove()


def test_scores_are_those_of_each_text_alone():
    decoder = find_decoder(build("GPT2").double())
    draw = random.Random(1)
    shots = [[draw.randrange(200) for _ in range(30)] for _ in range(3)]
    texts = [[*shots[i % 3], *(draw.randrange(200) for _ in range(draw.randint(2, 6)))] for i in range(30)]
    starts = [draw.randint(28, len(text) - 1) for text in texts]
    together = score_tokens(decoder, texts, starts)
    alone = [score_tokens(decoder, [text], [start]) for text, start in zip(texts, starts, strict=True)]
    assert torch.allclose(together.log_probs, torch.cat([one.log_probs for one in alone]), rtol=0, atol=1e-12)
    assert torch.equal(together.predicted, torch.cat([one.predicted for one in alone]))
    assert together.counts.tolist() == [len(text) - start for text, start in zip(texts, starts, strict=True)]
