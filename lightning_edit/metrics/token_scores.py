"""How likely a model finds tokens of texts, and given answers: one batched pass, logits only where they are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_edit.asking.tokenization import check_lengths, encode_target
from lightning_edit.messages import quoted
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.hooks import frozen, logits_at
from lightning_edit.models.out_of_memory import halving
from lightning_edit.models.prefixes.shared_prefixes import Pass, passes
from lightning_edit.progress import Report, silent

# Tokens of a batch, padding included. A processor is fastest while a batch's activations stay in its cache.
MAX_TOKENS, MAX_TOKENS_CPU = 8192, 1024
# Most numbers in the logits of a batch; in float32 they take 1 GiB.
MAX_LOGITS = 2**28


@dataclass(frozen=True)
class TokenScores:
    """What a model thinks of the scored tokens of some texts, text by text.

    Args:
        log_probs: ``(tokens,)`` log-probability of each, in nats, float64.
        predicted: ``(tokens,)`` the argmax in its place.
        hits: ``(tokens,)`` whether that is the token itself.
        owner: ``(tokens,)`` the index of its text.
        texts: Number of texts.
    """

    log_probs: Tensor
    predicted: Tensor
    hits: Tensor
    owner: Tensor
    texts: int

    def sum(self, values: Tensor) -> Tensor:
        """Sums ``(texts,)`` of one value for each scored token, in float64."""
        return torch.zeros(self.texts, dtype=torch.float64).index_add(0, self.owner, values.double())

    @property
    def counts(self) -> Tensor:
        """``(texts,)`` number of scored tokens of each text."""
        return torch.bincount(self.owner, minlength=self.texts)


def shared_rows(rows: Sequence[Sequence[int]]) -> tuple[list[tuple[int, ...]], list[int]]:
    """Leaves out rows that are the beginning of another: what a causal model says there, it says in the longer one.

    Two answers of one token each need the same row, and so do two records with a prompt in common.

    Args:
        rows: Token ids.

    Returns:
        The rows to run, and for each given row the index of the one that begins with it.
    """
    order = sorted(range(len(rows)), key=lambda i: tuple(rows[i]))
    kept: list[tuple[int, ...]] = []
    host = [0] * len(rows)
    # In the order of a dictionary a row comes right before those it begins.
    for index in reversed(order):
        row = tuple(rows[index])
        if not kept or kept[-1][: len(row)] != row:
            kept.append(row)
        host[index] = len(kept) - 1
    return kept, host


@torch.no_grad()
def score_tokens(
    decoder: Decoder,
    texts: Sequence[Sequence[int]],
    starts: Sequence[int],
    report: Report = silent,
    stage: str = "score (tokens)",
) -> TokenScores:
    """Scores the tokens ``text[start:]`` of each text, given all tokens before them.

    Args:
        decoder: The model.
        texts: Token ids of each text.
        starts: For each text the first token to score, 1 or more: the first of a text has nothing before it.
        report: Called with the number of tokens that the model has read.
        stage: What the report calls it.

    Returns:
        The scores, on the CPU.
    """
    # The last token of a text is predicted and never read.
    kept, host = shared_rows([text[:-1] for text in texts])
    # For each row: which column predicts which token, and where the result goes.
    places: list[list[tuple[int, int, int]]] = [[] for _ in kept]
    owner: list[int] = []
    for index, (text, start) in enumerate(zip(texts, starts, strict=True)):
        for column in range(start, len(text)):
            places[host[index]].append((column - 1, text[column], len(owner)))
            owner.append(index)
    rows = [row for row, at in zip(kept, places, strict=True) if at]
    places = [at for at in places if at]
    first = [min(column for column, *_ in at) for at in places]
    read, done = _Reader(decoder, places, len(owner)), 0
    with frozen(decoder.model):
        for batch in passes(decoder, rows, first, _budget(decoder, rows, first, places)):
            list(halving(partial(read, batch), range(len(batch.rows)), decoder.model))
            done += sum(len(rows[i]) for i in batch.rows)
            report(stage, done, sum(map(len, rows)))
    return TokenScores(read.log_probs, read.predicted, read.hits, torch.tensor(owner, dtype=torch.long), len(texts))


class _Reader:
    """Runs passes and notes what is wanted of them.

    Args:
        decoder: The model.
        places: For each row the columns to read, the token to score, and where the result goes.
        count: How many results there will be.
    """

    def __init__(self, decoder: Decoder, places: Sequence[Sequence[tuple[int, int, int]]], count: int) -> None:
        self.decoder, self.places = decoder, places
        self.log_probs = torch.zeros(count, dtype=torch.float64)
        self.predicted = torch.zeros(count, dtype=torch.long)
        self.hits = torch.zeros(count, dtype=torch.bool)

    def __call__(self, batch: Pass, chosen: Sequence[int]) -> None:
        """Notes log-probability of the tokens to score, argmax, and whether they agree.

        Args:
            batch: A pass.
            chosen: The places of the rows in it that are to be run.
        """
        part = batch.select(chosen)
        wanted = [
            (i, column - head, token, into)
            for i, (row, head) in enumerate(zip(part.rows, part.heads.tolist(), strict=True))
            for column, token, into in self.places[row]
        ]
        rows, columns, tokens, into = torch.tensor(wanted).unbind(1)
        tokens = tokens.to(self.decoder.device)
        with logits_at(self.decoder.head, rows, columns):
            logits = self.decoder.model(**part.inputs()).logits[0]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        predicted = logits.argmax(-1)
        log_probs = logits.log_softmax(-1).gather(1, tokens.to(logits.device)[:, None])[:, 0]
        self.log_probs[into], self.predicted[into] = log_probs.double().cpu(), predicted.cpu()
        self.hits[into] = (predicted == tokens.to(predicted.device)).cpu()


def _budget(
    decoder: Decoder, rows: Sequence[Sequence[int]], first: Sequence[int], places: Sequence[Sequence[Any]]
) -> int:
    # All before the first token that is read may be a head, which is no part of the pass.
    behind = (len(at) / (len(row) - begin) for row, begin, at in zip(rows, first, places, strict=True))
    share = max(behind, default=1.0)
    vocabulary = decoder.model.config.get_text_config().vocab_size
    most = decoder.tokens_at_once(min(MAX_TOKENS, MAX_TOKENS_CPU) if decoder.device.type == "cpu" else MAX_TOKENS)
    return min(most, int(MAX_LOGITS / vocabulary / max(share, 1e-9)))


@dataclass(frozen=True)
class TargetScores:
    """What a model thinks of m (prompt, answer) pairs.

    Args:
        log_probs: ``(m,)`` length-normalized log-probability, -mean NLL over the answer's tokens, in nats.
        correct: ``(m,)`` whether every token of the answer is the argmax.
        tokens: ``(m,)`` number of the answer's tokens.
        tokens_correct: ``(m,)`` how many of them are the argmax.
        predicted: For each pair the argmax in the place of each of the answer's tokens.
    """

    log_probs: Tensor
    correct: Tensor
    tokens: Tensor
    tokens_correct: Tensor
    predicted: tuple[tuple[int, ...], ...]


def score_targets(
    decoder: Decoder,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str] | tuple[str, str, str | None]],
    report: Report = silent,
    stage: str = "score answers (tokens)",
) -> TargetScores:
    """Scores answers after prompts, P(o | prompt) = exp(-mean NLL over o's tokens) (ROME, section 3.3).

    Args:
        decoder: The model.
        tokenizer: Its fast tokenizer.
        pairs: Complete prompts and their answers (without leading space), and where it is not the usual one what
            stands between them, see `join_target`.
        report: Called with the number of tokens that the model has read.
        stage: What the report calls it.

    Returns:
        The scores in the order of the pairs, on the CPU.

    Raises:
        EditError: If a text does not fit the model's context.
    """
    encoded = [encode_target(tokenizer, *pair) for pair in pairs]
    check_lengths(
        [len(ids) - 1 for ids, _ in encoded],
        [f"The prompt {quoted(prompt)}" for prompt, *_ in pairs],
        decoder.context,
    )
    scores = score_tokens(decoder, [ids for ids, _ in encoded], [start for _, start in encoded], report, stage)
    tokens, hits = scores.counts, scores.sum(scores.hits).long()
    predicted = tuple(tuple(part.tolist()) for part in scores.predicted.split(tokens.tolist()))
    return TargetScores(scores.sum(scores.log_probs) / tokens, hits == tokens, tokens, hits, predicted)
