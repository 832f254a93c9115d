"""How well a model still predicts what stands behind long contexts, where no short prompt looks."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from torch import Tensor, cat

from lightning_edit.asking.chat import ChatFormat, chat_of, plain_tokenizer
from lightning_edit.asking.tokenization import encode
from lightning_edit.collateral.asking import Asking
from lightning_edit.collateral.probe import Probe
from lightning_edit.distributed.process_group import in_shares
from lightning_edit.keys.text_rows import joined_rows
from lightning_edit.metrics.perplexity import perplexity_of
from lightning_edit.metrics.token_scores import score_tokens
from lightning_edit.models.decoder import Decoder

# Tokens of a row, fewer where the context ends, and of all rows: a small part of what answers to the prompts take.
LENGTH, MOST = 512, 2**12
# Behind fewer tokens nothing is behind a long context.
SHORTEST = 32
AFTER = "long_context_perplexity"
BEFORE, RATIO = f"{AFTER}_before", f"{AFTER}_ratio"
LONG_CONTEXT = (AFTER, BEFORE, RATIO)


def long_context(asking: Asking, probes: Sequence[Probe]) -> dict[str, float]:
    """Perplexity ``exp(mean NLL)`` of the second halves of long rows of text, before the run and now, and their ratio.

    The text is that of general prompts, each with what the model itself answered before the run, one after the other:
    it is there in every run, the model before the run finds it likely, and no edit is meant to change it. Short texts
    do not show this harm. A key depends on what stands before it, and if C is of single sentences, keys behind long
    contexts are not in it, so nothing keeps an update from changing their outputs. Only the second half of each row is
    scored, as beginnings are what short prompts show.

    Args:
        asking: The model, and how it was before.
        probes: General prompts with their answers before the run.

    Returns:
        Those of `LONG_CONTEXT`; none where there is too little text, or the context is too short.
    """
    length = min(LENGTH, asking.decoder.context or LENGTH)
    rows = text_of(asking.tokenizer, [(probe.prompt, probe.before) for probe in probes], length)
    start = max(map(len, rows), default=0) // 2
    rows = [row for row in rows if len(row) > start]
    if start < SHORTEST:
        return {}
    with asking.before():
        before = _nll(asking.decoder, rows, start)
    now = _nll(asking.decoder, rows, start)
    # The ratio of two perplexities that overflow may still be known.
    return {AFTER: perplexity_of(now), BEFORE: perplexity_of(before), RATIO: perplexity_of(now - before)}


def text_of(tokenizer: Any, answered: Sequence[tuple[str, str]], length: int) -> list[Sequence[int]]:
    """Prompts and answers one after the other, in rows of tokens; in a chat a row is a conversation of whole turns.

    Args:
        tokenizer: A fast transformers tokenizer or a `ChatTokenizer`.
        answered: Prompts and answers.
        length: Most tokens of a row.
    """
    chat = chat_of(tokenizer)
    if chat is None:
        return joined_rows(plain_tokenizer(tokenizer), (prompt + answer for prompt, answer in answered), MOST, length)
    rows, count = list[Sequence[int]](), 0
    for turns in _conversations(tokenizer, chat, answered, length):
        if count >= MOST:
            break
        rows.append(encode(tokenizer, _rendered(chat, turns), special=chat.special)[0][:length])
        count += len(rows[-1])
    return rows


def _conversations(
    tokenizer: Any, chat: ChatFormat, answered: Sequence[tuple[str, str]], length: int
) -> Iterator[list[tuple[str, str]]]:
    """As many turns each as fit."""
    turns: list[tuple[str, str]] = []
    for turn in answered:
        longer = [*turns, turn]
        if turns and len(encode(tokenizer, _rendered(chat, longer), special=chat.special)[0]) > length:
            yield turns
            longer = [turn]
        turns = longer
    if turns:
        yield turns


def _rendered(chat: ChatFormat, turns: Sequence[tuple[str, str]]) -> str:
    *history, (prompt, answer) = turns
    return chat(prompt, history) + chat.separator + answer + chat.end


def _nll(decoder: Decoder, rows: Sequence[Sequence[int]], start: int) -> Tensor:
    """Negative log-likelihoods ``(tokens,)`` of all tokens of the rows from one on, in nats."""
    return cat(in_shares(partial(_of_share, decoder, start), rows, decoder.model))


def _of_share(decoder: Decoder, start: int, own: Sequence[Sequence[int]]) -> Tensor:
    return -score_tokens(decoder, own, [start] * len(own)).log_probs
