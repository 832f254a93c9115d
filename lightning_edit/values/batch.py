"""The part of the model that depends on delta, prepared once for a micro-batch of edits and run again at every step.

Everything before the subject's last token is untouched by delta, and so is every block up to the edited one. Hence the
prefix of each text goes into a frozen cache, and each step runs the blocks above the edited one on the rest alone.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from lightning_edit.asking.tokenization import Encoded
from lightning_edit.models.batches import TokenBatch, pad
from lightning_edit.models.decoder import Decoder, ValueSite
from lightning_edit.models.hooks import by_position, capture_output, change_output, logits_at, resume_from, run_until
from lightning_edit.models.prefixes.prefix_cache import PrefixCache
from lightning_edit.models.prefixes.shared_prefixes import aligned_right
from lightning_edit.values.held import Held, in_place, plus, prefixes


@dataclass(frozen=True)
class Picks:
    """The positions whose logits are needed, as indices into the rows and columns of the suffixes; answers come first.

    Args:
        rows: ``(picks,)`` row of each pick.
        columns: ``(picks,)`` column of each pick.
        edits: ``(picks,)`` edit of each pick.
        targets: ``(picks,)`` token to predict, or -1 where the whole distribution is wanted (the KL prompt).
        weights: ``(picks,)`` weight in the edit's loss: one over templates times target tokens.
        deciding: ``(picks,)`` whether most-probable early stopping looks at it.
        answers: How many have a token to predict. Known from the beginning: a pass that is being recorded on a GPU must
            not wait for it.
    """

    rows: Tensor
    columns: Tensor
    edits: Tensor
    targets: Tensor
    weights: Tensor
    deciding: Tensor
    answers: int

    def where(self, mask: Tensor) -> "Picks":
        """Those picks for which ``mask (picks,)`` is true."""
        kept = {field.name: getattr(self, field.name)[mask] for field in fields(self) if field.name != "answers"}
        return Picks(**kept, answers=int((kept["targets"] >= 0).sum()))


@dataclass(frozen=True)
class ValueBatch:
    """Frozen inputs of the upper blocks for the edits of one micro-batch.

    Args:
        decoder: The model.
        layer: The edited block.
        site: Where delta is added, see `ValueSettings`.
        suffixes: Tokens from the subject's last one on, ``(rows, length)``.
        mask: ``(rows, prefix + length)``, what may be attended to.
        cache: The prefixes, None where texts are run from their first token.
        hidden: ``(rows, length, d_model)`` leaving the block under the first one to be run, None if all are run.
        output: What that block returned, for its form.
        row_edits: ``(rows,)`` edit of each row.
        subjects: ``(rows,)`` column of the subject's last token: 0 behind a prefix.
        picks: Where logits are wanted.
        held: ``(rows, length, d_model)``, what earlier values add where texts are run from their first token; None
            where they are in the cache, or there are none.
    """

    decoder: Decoder
    layer: int
    site: ValueSite
    suffixes: TokenBatch
    mask: Tensor
    cache: PrefixCache | None
    hidden: Tensor | None
    output: Any
    row_edits: Tensor
    subjects: Tensor
    picks: Picks
    held: Tensor | None = None

    def logits(self, delta: Tensor) -> Tensor:
        """Logits ``(picks, vocabulary)`` with delta added at the subject's last token of every row.

        Args:
            delta: ``(edits, d_model)``.
        """
        moved = delta[self.row_edits]

        def add(states: Tensor) -> Tensor:
            return self._moved(by_position(states, len(self)), moved).reshape(states.shape)

        with ExitStack() as stack:
            if self.hidden is not None:
                hidden = add(self.hidden) if self.site == "block" else self.hidden
                stack.enter_context(resume_from(list(self.decoder.blocks[: self.first_block]), self.output, hidden))
            elif self.site == "block":
                stack.enter_context(change_output(self.decoder.blocks[self.layer], add))
            if self.site == "mlp":
                stack.enter_context(change_output(self.decoder.down_projection(self.layer), add))
            stack.enter_context(logits_at(self.decoder.head, self.picks.rows, self.picks.columns))
            inputs = {**self.suffixes.inputs(), "attention_mask": self.mask, **cached(self.cache)}
            # Undoes `logits_at`; on the way back an index would fill another tensor of this size with zeros.
            return self.decoder.model(**inputs).logits.squeeze(0).to(delta)

    def _moved(self, hidden: Tensor, moved: Tensor) -> Tensor:
        """Hidden states ``(rows, length, d_model)`` with delta ``(rows, d_model)`` at the subjects."""
        if self.cache is not None:
            first = (hidden[:, :1].to(moved.dtype) + moved[:, None].to(hidden.device)).to(hidden.dtype)
            return torch.cat([first, hidden[:, 1:]], dim=1)
        places = torch.arange(len(self), device=hidden.device), self.subjects.to(hidden.device)
        changed = hidden.clone() if self.held is None else plus(hidden, self.held)
        changed[places] = (hidden[places].to(moved.dtype) + moved.to(hidden.device)).to(hidden.dtype)
        return changed

    @property
    def first_block(self) -> int:
        """The lowest block that delta can reach."""
        return self.layer + 1 if self.site == "block" else self.layer

    def __len__(self) -> int:
        return len(self.row_edits)

    def keep(self, edits: Tensor) -> "ValueBatch | None":
        """The batch of some of the edits, None if it has none of them; their numbers stay what they are.

        Args:
            edits: ``(all edits,)``, true for those to keep.
        """
        rows = edits[self.row_edits]
        return self.select(rows) if rows.any() else None

    def select(self, rows: Tensor) -> "ValueBatch":
        """The batch of some of its rows.

        Args:
            rows: ``(rows,)``, true for those to keep.
        """
        new_row = rows.cumsum(0) - 1
        picks = self.picks.where(rows[self.picks.rows])
        index = rows.nonzero()[:, 0]
        ids, positions = self.suffixes.input_ids[index], self.suffixes.position_ids[index]
        real = self.suffixes.real[index]
        length = int(real.sum(1).max())
        prefix = self.mask.shape[1] - self.suffixes.input_ids.shape[1]
        return replace(
            self,
            suffixes=TokenBatch(ids[:, :length], real[:, :length], positions[:, :length]),
            mask=self.mask[index][:, : prefix + length],
            cache=None if self.cache is None else self.cache.select(index),
            hidden=None if self.hidden is None else self.hidden[index.to(self.hidden.device), :length],
            row_edits=self.row_edits[index],
            subjects=self.subjects[index],
            held=None if self.held is None else self.held[index, :length],
            picks=replace(picks, rows=new_row[picks.rows]),
        )


def cached(cache: PrefixCache | None) -> dict[str, Any]:
    """Keyword arguments of a model's forward: what it goes on from.

    Args:
        cache: The prefixes, None where there are none.
    """
    return {} if cache is None else cache.inputs()


def _picks(
    rows: Sequence[tuple[int, Encoded]],
    starts: Sequence[int],
    texts_per_edit: int,
    deciding: Sequence[bool] | None,
    device: torch.device,
) -> Picks:
    entries: list[tuple[int, int, int, int, bool, float]] = []
    for row, (edit, text) in enumerate(rows):
        decides = deciding is None or deciding[row]
        targets = text.ids[text.target_start :]
        for i, token in enumerate(targets):
            column = text.target_start - 1 - starts[row] + i
            entries.append((row, column, edit, token, decides, 1 / (texts_per_edit * len(targets))))
        if not targets:
            entries.append((row, text.subject_last - starts[row], edit, -1, False, 1.0))
    entries.sort(key=lambda entry: entry[3] < 0)
    rows_, columns, edits, targets_ = torch.tensor([entry[:4] for entry in entries], device=device).T
    decides_ = torch.tensor([entry[4] for entry in entries], device=device)
    weights = torch.tensor([entry[5] for entry in entries], dtype=torch.float64, device=device)
    answers = sum(entry[3] >= 0 for entry in entries)
    return Picks(rows_, columns, edits, targets_, weights, decides_, answers)


@torch.no_grad()
def prepare(
    decoder: Decoder,
    layer: int,
    site: ValueSite,
    rows: Sequence[tuple[int, Encoded]],
    texts_per_edit: int,
    deciding: Sequence[bool] | None = None,
    held: Sequence[Held] | None = None,
) -> tuple[ValueBatch, Tensor]:
    """Runs everything that delta cannot reach, once.

    Args:
        decoder: The model, frozen and in evaluation mode.
        layer: The edited block.
        site: Where delta is added.
        rows: Each edit's number with one of its texts; a text without target is the edit's KL prompt.
        texts_per_edit: Number of context templates.
        deciding: For each row whether most-probable early stopping looks at it, None for all that have a target.
        held: For each row the values of the same text that were found before, all at earlier tokens; None for none.

    Returns:
        The batch, and for each row ``(rows, d_model)`` the state at the subject's last token to which delta is added.
    """
    device = decoder.device
    texts = [text for _, text in rows]
    resumed = decoder.resumption.prefixes
    starts = [text.subject_last if resumed else 0 for text in texts]
    cache = prefixes(decoder, layer, site, texts, held) if resumed else None
    suffixes, mask = _suffixes(texts, starts, 0 if cache is None else cache.length, device)
    found, states, cache = _run_below(decoder, layer, site, suffixes, mask, cache)
    edits = torch.tensor([edit for edit, _ in rows], device=device)
    subjects = torch.tensor([text.subject_last - start for text, start in zip(texts, starts, strict=True)])
    picks = _picks(rows, starts, texts_per_edit, deciding, device)
    earlier = None if resumed or held is None else in_place(held, suffixes.input_ids.shape[1], device)
    inputs = (suffixes, mask, cache, *found, edits, subjects.to(device), picks, earlier)
    return ValueBatch(decoder, layer, site, *inputs), states[torch.arange(len(rows)), subjects].to(device)


def _suffixes(
    texts: Sequence[Encoded], starts: Sequence[int], prefix: int, device: torch.device
) -> tuple[TokenBatch, Tensor]:
    """The tokens of texts from where each starts, and the mask ``(rows, prefix + length)``."""
    before = aligned_right(torch.tensor(starts, device=device), prefix)
    # The last target token is predicted and never read; of the KL prompt only the subject's end is needed.
    ends = [len(text.ids) - 1 if len(text.ids) > text.target_start else text.subject_last + 1 for text in texts]
    plain = pad([text.ids[start:end] for text, start, end in zip(texts, starts, ends, strict=True)], device)
    mask = torch.cat([before, torch.ones_like(plain.input_ids)], dim=1)
    return replace(plain, position_ids=plain.position_ids + before.sum(1, keepdim=True)), mask


def _run_below(
    decoder: Decoder, layer: int, site: ValueSite, suffixes: TokenBatch, mask: Tensor, cache: PrefixCache | None
) -> tuple[tuple[Tensor | None, Any], Tensor, PrefixCache | None]:
    """What leaves the last block that delta cannot reach, and its form; None where all blocks are to be run.

    Also returned are the states ``(rows, length, d_model)`` to which delta is added, and what is left of the cache.
    """
    first_block = layer + 1 if site == "block" else layer
    below_site = [capture_output(decoder.blocks[first_block - 1], stop=site == "block")] if first_block else []
    at_site = [capture_output(decoder.down_projection(layer), stop=True)] if site == "mlp" else []
    inputs = {**suffixes.inputs(), "attention_mask": mask, **cached(cache)}
    captured = run_until(decoder.model, inputs, *below_site, *at_site)
    # Of several residual streams the rows need not come first.
    by_rows = captured[0].value.shape[:2] == suffixes.input_ids.shape
    skipped = bool(below_site) and by_rows and decoder.resumption.after(first_block - 1)
    states = captured[-1].value.reshape(*suffixes.input_ids.shape, -1)
    if not skipped:
        return (None, None), states, cache
    left = None if cache is None else cache.keep_from(first_block)
    return (captured[0].value, captured[0].output), states, left
