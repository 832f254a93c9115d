"""Beginnings that several texts have in common (a context template, solved examples), run once for all of them."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_edit.models.batches import TokenBatch, by_length, pad, tokens_of_a_pass
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.out_of_memory import halving
from lightning_edit.models.prefixes.prefix_cache import PrefixCache, cache_texts

# What it takes to be worth a pass of its own: the share of all tokens that need not be run again.
WORTH = 0.2
Head = tuple[int, ...]


def prefix_lengths(rows: Sequence[Sequence[int]]) -> list[int]:
    """How much of each row is to be run with others that begin alike, so that few tokens are run.

    Each row gets at most one head. Runs of rows with a common beginning lie within each other, longer beginnings with
    fewer rows within shorter ones with more. From the inside out, a run takes its beginning as the head of all its
    parts but those that save more by themselves.

    Args:
        rows: Token ids, cut where a head must end.

    Returns:
        For each row the length of its head, 0 for none; all 0 where too little would be saved.
    """
    order = sorted(range(len(rows)), key=lambda i: tuple(rows[i]))
    common = [_common(rows[i], rows[j]) for i, j in itertools.pairwise(order)] + [0]
    heads = [0] * len(rows)
    open_runs: list[tuple[int, list[_Run]]] = [(0, [])]
    for last, shared in enumerate(common):
        run = _Run(last, 1, 0)
        while open_runs[-1][0] > shared:
            length, parts = open_runs.pop()
            run = _close(length, [*parts, run], heads)
        if open_runs[-1][0] < shared:
            open_runs.append((shared, []))
        open_runs[-1][1].append(run)
    if sum(run.saved for run in open_runs[0][1]) < WORTH * sum(map(len, rows)):
        return [0] * len(rows)
    lengths = [0] * len(rows)
    for index, length in zip(order, heads, strict=True):
        lengths[index] = length
    return lengths


class _Run(NamedTuple):
    """Rows that begin alike, in the order of a dictionary: the first of them, how many, and the tokens saved."""

    first: int
    rows: int
    saved: int


def _close(length: int, parts: list[_Run], heads: list[int]) -> _Run:
    """A run of rows of which so many tokens are the same; notes its head where it is the better one."""
    joining = [part for part in parts if part.rows * length >= part.saved]
    for part in joining:
        heads[part.first : part.first + part.rows] = [length] * part.rows
    saved = sum(max(part.rows * length, part.saved) for part in parts) - (length if joining else 0)
    return _Run(parts[0].first, sum(part.rows for part in parts), saved)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with, of which each row keeps one at least behind them.

    Args:
        rows: Token ids.
    """
    return min(_common(min(map(tuple, rows)), max(map(tuple, rows))), min(map(len, rows)) - 1)


@dataclass(frozen=True)
class Pass:
    """One pass over what is left of some rows behind their heads.

    Args:
        rows: Indices of the rows.
        batch: Their tokens behind the heads; position ids count from the beginning of the texts.
        heads: ``(rows,)`` lengths of their heads: column c of the batch is token ``heads + c`` of a text.
        mask: ``(rows, heads + length)``, what may be attended to.
        cache: The heads, None where there are none.
    """

    rows: list[int]
    batch: TokenBatch
    heads: Tensor
    mask: Tensor
    cache: PrefixCache | None

    def select(self, chosen: Sequence[int]) -> "Pass":
        """The pass over some of its rows, ``chosen`` being their places in it."""
        index = torch.tensor(chosen, device=self.heads.device)
        return Pass(
            [self.rows[i] for i in chosen],
            TokenBatch(*(getattr(self.batch, field.name)[index] for field in fields(TokenBatch))),
            self.heads[index],
            self.mask[index],
            None if self.cache is None else self.cache.select(index),
        )

    def inputs(self) -> dict[str, Any]:
        """Keyword arguments of the model's forward."""
        if self.cache is None:
            return self.batch.inputs()
        return {**self.batch.inputs(), "attention_mask": self.mask, **self.cache.inputs()}

    def extended(self, model: Any) -> PrefixCache:
        """The cache of the rows as a whole; there must be heads."""
        assert self.cache is not None
        return self.cache.extend(model, self.batch, self.mask)


def passes(decoder: Decoder, rows: Sequence[Sequence[int]], limits: Sequence[int], max_tokens: int) -> Iterator[Pass]:
    """Cuts rows into passes, after running the beginnings that several of them share.

    Args:
        decoder: The model, frozen.
        rows: Token ids, no row empty.
        limits: For each row how long its head may be, less than the row.
        max_tokens: Most tokens of a pass, padding included.

    Yields:
        Passes that together hold each row once.
    """
    padding = tokens_of_a_pass(decoder.device)
    lengths = [0] * len(rows)
    if decoder.resumption.prefixes:
        lengths = prefix_lengths([row[:limit] for row, limit in zip(rows, limits, strict=True)])
    members: dict[Head, list[int]] = {}
    for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        members.setdefault(tuple(row[:length]), []).append(i)

    def run(heads: Sequence[Head]) -> tuple[Sequence[Head], PrefixCache]:
        return heads, cache_texts(decoder.model, heads, len(decoder.blocks), decoder.device)

    if alone := members.pop((), None):
        for group in by_length([len(rows[i]) for i in alone], max_tokens, padding):
            yield _pass([alone[i] for i in group], rows, lengths, None, decoder.device)
    heads = list(members)
    for wave in by_length([len(head) for head in heads], max_tokens):
        for cached, cache in halving(run, [heads[i] for i in wave], decoder.model):
            behind = [(i, owner) for owner, head in enumerate(cached) for i in members[head]]
            for group in by_length([len(rows[i]) - lengths[i] for i, _ in behind], max_tokens, padding):
                indices, owners = zip(*(behind[place] for place in group), strict=True)
                yield _pass(list(indices), rows, lengths, cache.spread(torch.tensor(owners)), decoder.device)


def cache_prefixes(decoder: Decoder, prefixes: Sequence[Sequence[int]]) -> PrefixCache:
    """The cache of prefixes, aligned to the right, of which common beginnings are run once.

    Args:
        decoder: The model, frozen.
        prefixes: Token ids of each row, some possibly empty.
    """
    lengths = prefix_lengths(prefixes)
    if not any(lengths):
        return cache_texts(decoder.model, prefixes, len(decoder.blocks), decoder.device)
    heads = [tuple(row[:length]) for row, length in zip(prefixes, lengths, strict=True)]
    place = {head: number for number, head in enumerate(dict.fromkeys(heads))}
    cache = cache_texts(decoder.model, list(place), len(decoder.blocks), decoder.device)
    index = torch.tensor([place[head] for head in heads])
    if all(len(row) == length for row, length in zip(prefixes, lengths, strict=True)):
        return cache.select(index)
    rest = _pass(list(range(len(prefixes))), prefixes, lengths, cache.spread(index), decoder.device)
    return rest.extended(decoder.model)


def _pass(
    indices: list[int],
    rows: Sequence[Sequence[int]],
    lengths: Sequence[int],
    cache: PrefixCache | None,
    device: torch.device,
) -> Pass:
    plain = pad([rows[i][lengths[i] :] for i in indices], device)
    heads = torch.tensor([lengths[i] for i in indices], device=device)
    batch = replace(plain, position_ids=plain.position_ids + heads[:, None])
    new = torch.ones_like(plain.input_ids)
    mask = new if cache is None else torch.cat([aligned_right(heads, cache.length), new], dim=1)
    return Pass(indices, batch, heads, mask, cache)


def aligned_right(lengths: Tensor, width: int) -> Tensor:
    """A mask ``(rows, width)`` of ones at the end of each row, so many as its length.

    Args:
        lengths: ``(rows,)``.
        width: Length of the rows.
    """
    return (torch.arange(width, device=lengths.device)[None] >= width - lengths[:, None]).long()
