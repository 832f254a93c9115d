"""Codebooks and masked matrices against plain loops, on numbers that are drawn."""

import itertools

import pytest
import torch

from lightning_edit import EditError
from lightning_edit.memories.grace import GAP, Grace
from lightning_edit.memories.memoir import Memoir, MemoirClosed
from lightning_edit.memories.memory import Entry

D_IN, D_OUT, TOP_K = 40, 6, 12


@pytest.fixture
def drawn():
    torch.manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64)

    return draw


def entries_of_grace(draw, labels):
    keys = draw(len(labels), 3)
    return [Entry(str(i), label, {"key": keys[i], "value": draw(D_OUT)}) for i, label in enumerate(labels)]


def plain_codebook(entries, first):
    """GRACE's own words, one entry ``[key, value, radius, label]`` after the other."""
    book = []
    for entry in entries:
        key, value = entry.tensors["key"], entry.tensors["value"]
        nearest = min(book, key=lambda other: torch.dist(key, other[0]), default=None)
        distance = None if nearest is None else float(torch.dist(key, nearest[0]))
        if nearest is None or distance > first + nearest[2]:
            book.append([key, value, first, entry.label])
        elif nearest[3] == entry.label:
            nearest[2] = max(nearest[2], distance)
        else:
            nearest[2] = distance / 2 - GAP
            book.append([key, value, distance / 2, entry.label])
    return book


def test_the_codebook_of_grace_is_that_of_a_plain_loop(drawn):
    # In three dimensions keys are close to each other: radii grow, and are halved.
    entries = entries_of_grace(drawn, ["a", "b", "a", "c"] * 8)
    memory = Grace(0.8)
    memory.add(entries)
    book = plain_codebook(entries, 0.8)
    assert 4 < len(book) < len(entries)
    keys, output = drawn(200, 3), drawn(200, D_OUT)
    expected = output.clone()
    for token, key in enumerate(keys):
        nearest = min(book, key=lambda other: torch.dist(key, other[0]))
        if torch.dist(key, nearest[0]) <= nearest[2]:
            expected[token] = nearest[1]
    changed = (expected != output).any(1)
    assert 0 < changed.sum() < 200
    torch.testing.assert_close(memory.change(keys, output), expected, rtol=0, atol=0)


def entries_of_memoir(memory, draw, count):
    closed = isinstance(memory, MemoirClosed)
    made = []
    for i in range(count):
        keys = draw(3, D_IN)
        mask = memory.mask(keys[-1])
        tensors = {"mask": mask, "keys": keys if closed else keys[:, mask], "values": draw(3, D_OUT)}
        made.append(Entry(str(i), "a", tensors))
    return made


def memoir(kind, draw, **settings):
    torch.manual_seed(1)
    return kind(draw(D_IN), torch.randperm(D_IN), TOP_K, **{"threshold": 0.4, **settings})


def plain_mask(memory, key):
    """Columns of one activation, as a set."""
    features = sorted(range(D_IN), key=lambda i: -abs(float(key[i] - memory.background[i])))[:TOP_K]
    return {int(memory.order[i]) for i in features}


def plain_masked(memory, entries, key):
    """x * m for the one token, or nothing."""
    stored = [set(entry.tensors["mask"].tolist()) for entry in entries]
    shares = [len(plain_mask(memory, key) & mask) / TOP_K for mask in stored]
    best = max(range(len(stored)), key=lambda i: (shares[i], i))
    masked = torch.zeros(D_IN, dtype=torch.float64)
    if shares[best] >= memory.threshold:
        for column in stored[best]:
            masked[column] = key[column]
    return masked


def test_memoir_answers_with_the_mask_that_a_token_shares_most_with(drawn):
    memory = memoir(Memoir, drawn)
    entries = entries_of_memoir(memory, drawn, 4)
    memory.add(entries)
    weight = torch.zeros(D_OUT, D_IN, dtype=torch.float64)
    for entry, token in itertools.product(entries, range(3)):
        for place, column in enumerate(entry.tensors["mask"].tolist()):
            weight[:, column] += entry.tensors["values"][token] * entry.tensors["keys"][token, place]
    keys, output = drawn(30, D_IN), drawn(30, D_OUT)
    masked = torch.stack([plain_masked(memory, entries, key) for key in keys])
    assert 0 < masked.any(1).sum() < 30
    torch.testing.assert_close(memory.change(keys, output), output + masked @ weight.T, rtol=0, atol=1e-9)


def test_the_closed_form_is_the_ridge_regression_on_masked_keys(drawn):
    memory = memoir(MemoirClosed, drawn, ridge=0.3)
    entries = entries_of_memoir(memory, drawn, 4)
    memory.add(entries)
    keys = torch.stack([plain_masked(memory, entries, key) for entry in entries for key in entry.tensors["keys"]])
    values = torch.cat([entry.tensors["values"] for entry in entries])[keys.any(1)]
    keys = keys[keys.any(1)]
    expected = torch.linalg.solve(keys.T @ keys + 0.3 * torch.eye(D_IN, dtype=torch.float64), keys.T @ values).T
    torch.testing.assert_close(memory.weight(), expected, rtol=0, atol=1e-9)


def made(kind, draw):
    if kind is Grace:
        return Grace(0.8), entries_of_grace(draw, ["a", "b", "a", "c"] * 4)
    memory = memoir(kind, draw)
    return memory, entries_of_memoir(memory, draw, 6)


def test_of_two_edits_with_one_key_the_later_counts(drawn):
    memory, (first, second) = Grace(0.8), entries_of_grace(drawn, ["a", "b"])
    key = first.tensors["key"]
    memory.add([first, Entry("1", "b", {"key": key, "value": second.tensors["value"]})])
    found = memory.change(key[None], drawn(1, D_OUT))[0]
    torch.testing.assert_close(found, second.tensors["value"], rtol=0, atol=0)


@pytest.mark.parametrize("kind", [Grace, Memoir, MemoirClosed])
def test_an_edit_that_is_taken_out_has_never_been(kind, drawn):
    memory, entries = made(kind, drawn)
    without, _ = made(kind, drawn)
    without.background, without.order = (getattr(memory, name, None) for name in ("background", "order"))
    memory.add(entries)
    keys, output = drawn(60, 3 if kind is Grace else D_IN), drawn(60, D_OUT)
    before = memory.change(keys, output)
    memory.remove(2)
    without.add(entries[:2] + entries[3:])
    assert torch.equal(memory.change(keys, output), without.change(keys, output))
    assert not torch.equal(memory.change(keys, output), before)
    for _ in entries[1:]:
        memory.remove(0)
    assert memory.change(keys, output) is output
    with pytest.raises(EditError, match="holds 0"):
        memory.remove(0)
