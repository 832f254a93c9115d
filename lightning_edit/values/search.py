"""The search for value vectors: one delta for each edit, all in one batch, and an end for each by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_edit.errors import EditError
from lightning_edit.models.out_of_memory import halving
from lightning_edit.values.batch import ValueBatch
from lightning_edit.values.recorded import Recordings
from lightning_edit.values.settings import ValueSettings
from lightning_edit.values.vectors import Values


@dataclass
class Search:
    """Delta, the settings and what each edit had reached when it stopped; `optimize_values` has the formula.

    Args:
        settings: See `ValueSettings`.
        z0: ``(n, d_model)``, the unedited states.
        delta: ``(n, d_model)``, what is searched for.
        final: ``(n, d_model)``, the delta with which an edit ended.
        parts: ``(3, n)`` the loss with it: likelihood, divergence, decay.
        steps: ``(n,)`` passes made.
        active: ``(n,)`` which edits go on.
        finite: ``(n,)`` false where the loss was not a number.
        missed: ``(n,)`` whether an edit's answer was not the likeliest in the pass under way.
        hits: ``(n,)`` in how many passes it was.
        reference: ``(n, vocabulary)`` log-probabilities of the KL prompt without delta, known after the first pass.
        recordings: Passes that are replayed on a GPU.
        best: ``(n, d_model)``, the delta of an edit's least loss so far, and its loss parts ``(3, n)``; None where the
            last delta counts.
    """

    settings: ValueSettings
    z0: Tensor
    delta: Tensor
    final: Tensor
    parts: Tensor
    steps: Tensor
    active: Tensor
    finite: Tensor
    missed: Tensor
    hits: Tensor
    recordings: Recordings
    reference: Tensor | None = None
    best: tuple[Tensor, Tensor] | None = None

    @staticmethod
    def start(z0: Tensor, settings: ValueSettings, model: Any) -> "Search":
        """A search that begins with delta = 0, in passes of a model."""
        n, device = len(z0), z0.device
        everyone = torch.ones(n, dtype=torch.bool, device=device)
        return Search(
            settings=settings,
            z0=z0,
            delta=torch.zeros_like(z0, requires_grad=True),
            final=torch.zeros_like(z0),
            parts=torch.zeros(3, n, dtype=z0.dtype, device=device),
            steps=torch.zeros(n, dtype=torch.long, device=device),
            active=everyone,
            finite=everyone.clone(),
            missed=torch.zeros_like(everyone),
            hits=torch.zeros(n, dtype=torch.long, device=device),
            recordings=Recordings.on(model, device),
        )

    def keep_best(self) -> None:
        """From now on an edit that runs out of passes ends with the delta of its least loss."""
        self.best = torch.zeros_like(self.z0), torch.full_like(self.parts, torch.inf)

    def losses(self, groups: Sequence[ValueBatch], last: bool) -> tuple[Tensor, Tensor, list[ValueBatch]]:
        """Loss parts ``(3, n)`` (likelihood, divergence, decay) of the edits, and the gradient ``(n, d_model)``.

        The loss is a sum over texts, so each group's graph is let go before the next one is built. After the last pass
        no step is made, and its gradient is left 0. Also returned are the groups, where memory ran out in halves.
        """
        parts, gradient = torch.zeros_like(self.parts), torch.zeros_like(self.z0)
        first, fitting = self.reference is None, []
        self.missed.zero_()
        for group in groups:
            made = None if first or last else self.recordings.replayed(group, partial(self._sloped, group))
            if made is not None:
                fitting.append(group)
                parts[:2] += made[0]
                gradient += made[1]
                continue
            job = partial(self._pass, group, first, last)
            for part, terms, slope in halving(job, range(len(group)), group.decoder.model):
                fitting.append(part)
                self.recordings.passed(part)
                parts[:2] += terms
                gradient += slope
        with torch.enable_grad():
            # |delta| has no derivative at 0, where the search begins; torch gives 0 there, as in the published code.
            decay = self.settings.weight_decay * self.delta.norm(dim=1) / self.z0.norm(dim=1) ** 2
            gradient += torch.autograd.grad(decay.sum(), self.delta)[0]
        parts[2] = decay.detach()
        return parts, gradient, fitting

    def _pass(
        self, group: ValueBatch, first: bool, last: bool, rows: Sequence[int]
    ) -> tuple[ValueBatch, Tensor, Tensor]:
        """Some rows of a group, what they add to likelihood and divergence, ``(2, n)``, and its gradient."""
        if len(rows) < len(group):
            chosen = torch.zeros(len(group), dtype=torch.bool, device=group.row_edits.device)
            chosen[list(rows)] = True
            group = group.select(chosen)
        if last:
            with torch.no_grad():
                return group, self._terms(group, first), torch.zeros_like(self.z0)
        return group, *self._sloped(group, first)

    def _sloped(self, group: ValueBatch, first: bool = False) -> tuple[Tensor, Tensor]:
        """What a group adds to likelihood and divergence, ``(2, n)``, and its gradient ``(n, d_model)``."""
        with torch.enable_grad():
            terms = self._terms(group, first)
            if not terms.requires_grad:
                raise EditError(
                    f"{type(group.decoder.model).__name__} runs its blocks without gradients, so no value can be found."
                )
            return terms.detach(), torch.autograd.grad(terms.sum(), self.delta)[0]

    def _terms(self, group: ValueBatch, first: bool) -> Tensor:
        """What the texts of a group add to likelihood and divergence, ``(2, n)``."""
        picks, n, answers = group.picks, len(self.z0), group.picks.answers
        # Parts, not copies: these are the largest tensors of a pass.
        logits, last_logits = group.logits(self.delta).split([answers, len(picks.rows) - answers])
        targets, of_answer, edits = picks.targets[:answers], picks.edits[:answers], picks.edits[answers:]
        if self.settings.mpes is not None:
            wrong = picks.deciding[:answers] & (logits.detach().argmax(-1) != targets)
            self.missed |= self.hits.new_zeros(n).index_add(0, of_answer, wrong.to(self.hits.dtype)) > 0
        surprise = cross_entropy(logits, targets, reduction="none") * picks.weights[:answers].to(logits.dtype)
        nll = surprise.new_zeros(n).index_add(0, of_answer, surprise)
        if self.reference is None and not len(edits):
            # Windows of an answer have no KL prompt.
            return torch.stack([nll, torch.zeros_like(nll)])
        moved = last_logits.log_softmax(-1)
        if self.reference is None:
            self.reference = moved.new_zeros(n, moved.shape[1])
        if first:
            self.reference[edits] = moved.detach()
        divergence = (moved.exp() * (moved - self.reference[edits])).sum(1)
        kl = nll.new_zeros(n).index_add(0, edits, divergence)
        return torch.stack([nll, self.settings.kl_factor * kl])

    def settle(self, parts: Tensor, last: bool) -> Tensor:
        """Notes where edits end; returns which of all edits go on, ``(n,)``."""
        total = parts.detach().sum(0)
        sound = total.isfinite()
        done = last | ~sound | (total < self.settings.early_stop_loss)
        if self.settings.mpes is not None:
            self.hits += self.active & ~self.missed
            done |= self.hits >= self.settings.mpes
        done &= self.active
        self.steps += self.active
        delta, reached = self._best(parts.detach(), last)
        self.final[done] = delta[done]
        self.parts[:, done] = reached[:, done]
        self.finite &= sound | ~self.active
        self.active = self.active & ~done
        return self.active

    def _best(self, parts: Tensor, last: bool) -> tuple[Tensor, Tensor]:
        """The deltas with which edits would end now, ``(n, d_model)``, and their loss parts ``(3, n)``.

        An edit that ends early ends where it is, one that runs out of passes with the best that it had.
        """
        delta = self.delta.detach()
        if self.best is None:
            return delta, parts
        best, least = self.best
        better = parts.sum(0) < least.sum(0)
        self.best = torch.where(better[:, None], delta, best), torch.where(better, parts, least)
        return self.best if last else (delta, parts)

    def clamp(self) -> None:
        """Projects every delta into its ball, ``|delta| <= clamp_norm_factor |z0|``."""
        with torch.no_grad():
            limit = self.settings.clamp_norm_factor * self.z0.norm(dim=1, keepdim=True)
            norm = self.delta.norm(dim=1, keepdim=True)
            self.delta.copy_(torch.where(norm > limit, self.delta * limit / norm, self.delta))

    def result(self) -> Values:
        """The values, once every edit has ended."""
        deltas = torch.where(self.finite[:, None], self.final, torch.zeros_like(self.final))
        nll, kl, decay = self.parts
        # Of an edit without a value the loss is NaN, also where it had a better one before.
        nll = torch.where(self.finite, nll, torch.nan)
        return Values(self.z0 + deltas, self.z0, nll, kl, decay, self.steps, self.finite)
