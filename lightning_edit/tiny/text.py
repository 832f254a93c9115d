"""Training rows: the world's sentences packed into rows of tokens, and what each token may still attend to."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerBase

from lightning_edit.tiny.world import Sentence, World


@dataclass(frozen=True)
class Encoded:
    """One sentence in tokens, all arrays of the sentence's length.

    Attributes:
        ids: Token ids.
        name_end: For tokens of the subject's name, the position of the name's last token; -1 for all others.
        is_answer: Whether the token is part of a fact's answer.
    """

    ids: Tensor
    name_end: Tensor
    is_answer: Tensor


class Batch(NamedTuple):
    """Rows of equal length.

    Attributes:
        ids: Token ids, (rows, length).
        first_attends: Which position (second last dimension) attends to which (last) in the model's first block,
            (rows, 1, length, length), bool.
        attends: The same for all other blocks.
        weights: Weight of each token's own loss, (rows, length).
    """

    ids: Tensor
    first_attends: Tensor
    attends: Tensor
    weights: Tensor


def encode(tokenizer: PreTrainedTokenizerBase, sentence: Sentence, continued: bool) -> Encoded:
    """Encode a sentence, with a space in front if it is ``continued`` from an earlier one."""
    text = " " + sentence.text if continued else sentence.text
    encoding = tokenizer(text, return_offsets_mapping=True)
    ends = torch.tensor([end for _, end in encoding["offset_mapping"]])
    name_end = torch.full_like(ends, -1)
    is_answer = torch.zeros_like(ends, dtype=torch.bool)
    if sentence.subject is not None:
        start = text.index(sentence.subject)
        inside = ((ends > start) & (ends <= start + len(sentence.subject))).nonzero()[:, 0]
        name_end[inside] = inside[-1]
    if sentence.answer is not None:
        start = len(text) - len(sentence.answer) - 1
        is_answer[(ends > start) & (ends < len(text))] = True
    return Encoded(torch.tensor(encoding["input_ids"]), name_end, is_answer)


def cut_short(encoded: Encoded, length: int, stop: int) -> Encoded:
    """Cut a sentence to its first tokens and end it there.

    Args:
        encoded: The sentence.
        length: Tokens kept. A name that is cut is no name any more, and an answer that is cut no answer.
        stop: Token id of the full stop put behind them.
    """
    ids = torch.cat([encoded.ids[:length], torch.tensor([stop])])
    name_end = torch.cat([encoded.name_end[:length], torch.tensor([-1])])
    return Encoded(ids, torch.where(name_end < length, name_end, -1), torch.zeros_like(ids, dtype=torch.bool))


class Rows(IterableDataset[Batch]):
    """An endless, seeded stream of batches.

    Each row starts a text of its own; a row holds as many sentences as fit, so most facts are seen behind arbitrary
    earlier sentences and some at the very beginning. Some rows start with a sentence that breaks off, as the context
    prefixes of an edit do, which are generated up to a fixed number of tokens.

    With probability ``sealed`` a row's names are sealed: in the first block a name's tokens attend to that name only
    and nothing else attends to them, and in all other blocks nothing behind a name attends to any but its last token.
    What the row says of a subject then has to come from what the first block leaves at its last token, which depends
    on the name alone: there an edit reaches all of it, in any wording. Without this the model also reads names where
    edits do not reach, token by token or before the first block is done.

    Args:
        world: The world whose text it is.
        tokenizer: The world's tokenizer.
        seed: Draws the filler and the order.
        tokens_per_batch: Rows times length.
        broken: Probability that a row starts with a sentence that breaks off.
        lengths: Tokens a row, batch by batch, over and over. Short rows teach facts fastest, because there is little
            else to attend to; long ones teach to find them behind other text, and the later positions.
        sealed: Probability that a row's names are sealed.
        head_start: Batches before the first block is sealed too. A model that starts out sealed does not learn to
            look names up for a long time; one that already knows the facts moves them in a few hundred steps.
        text_weight: Loss weight of tokens that are no part of an answer, which weigh 1.
    """

    def __init__(
        self,
        world: World,
        tokenizer: PreTrainedTokenizerBase,
        seed: int,
        tokens_per_batch: int = 1024,
        lengths: tuple[int, ...] = (24, 24, 24, 64, 24, 24, 24, 128),
        broken: float = 0.25,
        sealed: float = 0.8,
        head_start: int = 900,
        text_weight: float = 0.3,
    ) -> None:
        self.world, self.tokenizer, self.seed = world, tokenizer, seed
        self.tokens_per_batch, self.lengths, self.broken = tokens_per_batch, lengths, broken
        self.stop = tokenizer(".")["input_ids"][0]
        self.sealed, self.head_start, self.text_weight = sealed, head_start, text_weight

    def __iter__(self) -> Iterator[Batch]:
        rng = random.Random(f"rows {self.seed}")
        stream = self._sentences(rng)
        for index, length in enumerate(cycle(self.lengths)):
            rows = [self._row(stream, length, rng) for _ in range(self.tokens_per_batch // length)]
            sealed = torch.tensor([rng.random() < self.sealed for _ in rows])
            yield self._batch(rows, sealed, seal_first=index >= self.head_start)

    def _sentences(self, rng: random.Random) -> Iterator[tuple[Encoded, Encoded]]:
        facts = [self._both(sentence) for sentence in self.world.fact_sentences()]
        for epoch in range(1 << 30):
            seed = self.seed + epoch
            others = self.world.subject_sentences(seed, each=1) + self.world.filler_sentences(seed, 1000)
            everything = facts + [self._both(sentence) for sentence in others]
            rng.shuffle(everything)
            yield from everything

    def _both(self, sentence: Sentence) -> tuple[Encoded, Encoded]:
        return encode(self.tokenizer, sentence, continued=False), encode(self.tokenizer, sentence, continued=True)

    def _row(self, stream: Iterator[tuple[Encoded, Encoded]], length: int, rng: random.Random) -> Encoded:
        parts: list[Encoded] = []
        filled = 0
        while filled < length:
            first, continued = next(stream)
            part = continued if parts else first
            if not parts and rng.random() < self.broken:
                part = cut_short(part, rng.randrange(1, len(part.ids) - 1), self.stop)
            name_end = torch.where(part.name_end >= 0, part.name_end + filled, -1)
            parts.append(Encoded(part.ids, name_end, part.is_answer))
            filled += len(part.ids)
        joined = (torch.cat([getattr(part, name) for part in parts]) for name in ("ids", "name_end", "is_answer"))
        return Encoded(*(array[:length] for array in joined))

    def _batch(self, rows: list[Encoded], sealed: Tensor, seal_first: bool) -> Batch:
        ids = torch.stack([row.ids for row in rows])
        end = torch.stack([row.name_end for row in rows])
        is_answer = torch.stack([row.is_answer for row in rows])
        unsealed = ~sealed[:, None, None]
        position = torch.arange(ids.shape[1])
        causal = position[:, None] >= position
        same_name = end[:, :, None] == end[:, None, :]
        is_last = end == position
        readable = (end < 0) | is_last
        inside_name = position[:, None] <= end[:, None, :]
        first_attends = causal & (same_name | unsealed | (not seal_first))
        attends = causal & (readable[:, None, :] | inside_name | unsealed)
        weights = torch.where(is_answer, 1.0, self.text_weight)
        return Batch(ids, first_attends[:, None], attends[:, None], weights)
