"""Free generation: batched, left-padded, with a key/value cache, and the same texts whatever the batches are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteriaList

from lightning_edit.asking.generation_plan import by_equal_length, groups_with_room, head_lengths, may_pad
from lightning_edit.asking.generation_settings import end_tokens, plain_settings
from lightning_edit.asking.stop_texts import StopTexts, cut_at
from lightning_edit.asking.tokenization import check_lengths, encode_prompt
from lightning_edit.messages import quoted
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.hooks import frozen
from lightning_edit.models.out_of_memory import halving
from lightning_edit.models.prefixes.prefix_cache import PrefixCache, cache_texts
from lightning_edit.progress import Report, silent
from lightning_edit.storage.fingerprint import fingerprint

MAX_TOKENS = 8192


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn; without it the likeliest one is taken.

    Args:
        top_k: Among so many of the likeliest tokens (5 in ROME's code).
        seed: Decides the texts: the same seed and prompt give the same text, in any batch.
    """

    top_k: int = 5
    seed: int = 0


class _DrawAmongLikeliest(LogitsProcessor):
    """Leaves the drawn token only: the argmax of logits plus Gumbel noise is a draw from their softmax.

    Each row has a random stream of its own, so neither the other rows nor the global random state matter.
    """

    def __init__(self, sampling: Sampling, names: Sequence[str]) -> None:
        self.top_k = sampling.top_k
        self.streams = [
            torch.Generator().manual_seed(int(fingerprint(str(sampling.seed), name)[:15], 16)) for name in names
        ]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        values, tokens = scores.topk(min(self.top_k, scores.shape[1]), dim=1)
        uniform = torch.stack([torch.rand(values.shape[1], generator=g, dtype=torch.float64) for g in self.streams])
        gumbel = -(-uniform.clamp(min=1e-300).log()).log()
        drawn = tokens.gather(1, (values.double().cpu() + gumbel).argmax(1, keepdim=True).to(tokens.device))
        return torch.full_like(scores, -torch.inf).scatter(1, drawn, 0.0)


class _PaddingFails(Exception):
    """A model answers masked padding with NaN."""


class _RefuseNaN(LogitsProcessor):
    """Some attentions answer a position that may see nothing (padding under a sliding window) with NaN."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if scores.isnan().any():
            raise _PaddingFails
        return scores


def generate(
    decoder: Decoder,
    tokenizer: Any,
    prompts: Sequence[str],
    new_tokens: int | Sequence[int],
    sampling: Sampling | None = None,
    draws: Sequence[int] | None = None,
    report: Report = silent,
    max_tokens: int = MAX_TOKENS,
    stop: bool = True,
    until: Sequence[str] = (),
) -> list[str]:
    """What a model writes after each prompt.

    Nothing counts but the model's logits: penalties and the like that its own generation settings may name do not.

    Args:
        decoder: The model as it is now.
        tokenizer: Its fast tokenizer.
        prompts: Complete prompts.
        new_tokens: Most tokens to write after each, one number for all or one for each; fewer where the context ends
            or the model says that it is done.
        sampling: How tokens are drawn; None takes the likeliest.
        draws: For each prompt a number; prompts of equal text and equal number give equal texts.
        report: Called with the number of prompts done.
        max_tokens: Most tokens of a batch, padding and new ones included.
        stop: Whether a text is done with the token that says so; otherwise the model goes on, on a new line.
        until: Texts that end a continuation too; it has neither them nor what follows them.

    Returns:
        The continuations, without their prompts, in the order of the prompts.

    Raises:
        EditError: If a prompt leaves no room in the model's context.
    """
    rows = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    check_lengths([len(row) + 1 for row in rows], [f"The prompt {quoted(p)}" for p in prompts], decoder.context)
    names = [f"{draw} {p}" for draw, p in zip(draws or [0] * len(prompts), prompts, strict=True)]
    wanted = [new_tokens] * len(rows) if isinstance(new_tokens, int) else list(new_tokens)
    room = [
        count if decoder.context is None else min(count, decoder.context - len(row))
        for row, count in zip(rows, wanted, strict=True)
    ]
    texts = [""] * len(prompts)
    done, ends = 0, end_tokens(decoder.model, tokenizer)
    write = _Writer(decoder, tokenizer, rows, room, ends if stop else [], names, sampling, until)
    waiting = write.plan(max_tokens)
    while waiting:
        group = waiting.pop(0)
        try:
            written = [new for part in halving(write, group, decoder.model) for new in part]
        except _PaddingFails:
            waiting = by_equal_length([group, *waiting], rows)
            continue
        for i, new in zip(group, written, strict=True):
            texts[i] = cut_at(_text(tokenizer, rows[i], new[: room[i]], ends, stop), until)
        done += len(group)
        report("generate (texts)", done, len(prompts))
    return texts


class _Writer:
    """Continues groups of prompts, those behind one shared head after each other.

    Args:
        decoder: The model.
        tokenizer: Its tokenizer.
        rows: Token ids of the prompts.
        room: For each how many tokens may be written.
        ends: Tokens that end a text.
        names: For each prompt what decides its draws.
        sampling: See `generate`.
        until: The same.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Any,
        rows: Sequence[list[int]],
        room: Sequence[int],
        ends: Sequence[int],
        names: Sequence[str],
        sampling: Sampling | None,
        until: Sequence[str] = (),
    ) -> None:
        self.decoder, self.tokenizer, self.rows, self.room = decoder, tokenizer, rows, room
        self.ends, self.names, self.sampling, self.until = ends, names, sampling, until
        self.resumed = decoder.resumption.prefixes  # A recurrent layer would read padding as a part of the text.
        longest = max(map(sum, zip(map(len, rows), room, strict=True)), default=0)
        self.padded = self.resumed and may_pad(decoder, longest)
        lengths = head_lengths(rows, room, decoder.device, self.padded) if self.resumed else [0] * len(rows)
        self.heads = [tuple(row[:length]) for row, length in zip(rows, lengths, strict=True)]
        self._known: tuple[tuple[int, ...], PrefixCache | None] = ((), None)

    def plan(self, max_tokens: int) -> list[list[int]]:
        """Indices of prompts that are continued together.

        Args:
            max_tokens: Most tokens of a batch, padding and new ones included.
        """
        behind: dict[tuple[int, ...], list[int]] = {}
        for i, head in enumerate(self.heads):
            behind.setdefault(head, []).append(i)
        plan: list[list[int]] = []
        for head, those in behind.items():
            lengths, room = [len(self.rows[i]) for i in those], [self.room[i] for i in those]
            places = groups_with_room(lengths, room, self.decoder.context, max_tokens)
            groups = [[those[place] for place in group] for group in places]
            plan += by_equal_length(groups, self.rows) if (head or not self.resumed) and not self.padded else groups
        return plan

    def __call__(self, group: Sequence[int]) -> list[list[int]]:
        """The new tokens of each prompt of a group."""
        decoder, head = self.decoder, self.heads[group[0]]
        if head != self._known[0]:
            with frozen(decoder.model):
                cache = cache_texts(decoder.model, [head], len(decoder.blocks), decoder.device) if head else None
            self._known = (head, cache)
        draw = None if self.sampling is None else _DrawAmongLikeliest(self.sampling, [self.names[i] for i in group])
        rows, longest = [self.rows[i] for i in group], max(self.room[i] for i in group)
        return _continue(decoder, self.tokenizer, rows, longest, draw, self.ends, self._known[1], self.until)


@torch.no_grad()
def _continue(
    decoder: Decoder,
    tokenizer: Any,
    rows: Sequence[list[int]],
    count: int,
    draw: Any,
    ends: Sequence[int],
    head: PrefixCache | None,
    until: Sequence[str] = (),
) -> list[list[int]]:
    """The new tokens of each row, of which a head may be known; what follows one of the ends is padding."""
    length, start = max(len(row) for row in rows), 0 if head is None else head.length
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, :start], mask[i, :start] = torch.tensor(row[:start]), 1
        ids[i, length - len(row) + start :] = torch.tensor(row[start:])
        mask[i, length - len(row) + start :] = 1
    processors = [_RefuseNaN()] if 0 in mask else []
    stops = StopTexts(tokenizer, until, length, len(rows)) if until else None
    with frozen(decoder.model), plain_settings(decoder.model, ends):
        written = decoder.model.generate(
            input_ids=ids.to(decoder.device),
            attention_mask=mask.to(decoder.device),
            max_new_tokens=count,
            do_sample=False,
            logits_processor=LogitsProcessorList(processors if draw is None else [*processors, draw]),
            stopping_criteria=StoppingCriteriaList([] if stops is None else [stops]),
            pad_token_id=tokenizer.pad_token_id or 0,
            past_key_values=None if head is None else head.growing(len(rows)),
        )
    new = written[:, length:].tolist()
    # What follows in a row that is done is padding, or goes on where no token would end it.
    return new if stops is None else [row[:done] for row, done in zip(new, stops.lengths, strict=True)]


def _text(tokenizer: Any, row: Sequence[int], new: Sequence[int], ends: Sequence[int], stop: bool) -> str:
    """The text of new tokens after a row, each part up to an end on a line of its own."""
    parts: list[list[int]] = [[]]
    for token in new:
        if token in ends:
            parts.append([])
        else:
            parts[-1].append(token)
    # Decoded alone, new tokens would lose the space they begin with in some tokenizers.
    before, after = tokenizer.batch_decode([list(row), [*row, *parts[0]]], skip_special_tokens=True)
    extends = after.startswith(before)
    first = after[len(before) :] if extends else tokenizer.decode(parts[0], skip_special_tokens=True)
    return first if stop else "\n".join([first, *tokenizer.batch_decode(parts[1:], skip_special_tokens=True)])
