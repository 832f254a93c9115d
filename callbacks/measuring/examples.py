"""Edits in the model's own words, before and after."""

import heapq
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from rich.table import Table

from lightning_edit.asking.generation import generate
from lightning_edit.asking.room import room_of
from lightning_edit.callbacks.failed_edits import NotesFailures
from lightning_edit.messages import cells, counted, terminal
from lightning_edit.metrics.edit_metrics import name_of
from lightning_edit.metrics.generated_text import generated_match
from lightning_edit.requests import EditRequest
from lightning_edit.run.edit_callback import EditingRun
from lightning_edit.sentences import first_sentence
from lightning_edit.settings import Checked, Count, CountOrZero

Texts = dict[tuple[str, ...], str]


class ShowExamples(Checked, NotesFailures):
    """Prints what the model answers by itself (greedily) to the edited prompts, before and after the run.

    All edits are shown where they are no more than `count`; otherwise the ones that failed come first. What the test
    has let the model write already, with as many tokens, is not written again.

    Args:
        count: How many edits to show at most.
        tokens: How many tokens to generate for each.
    """

    def __init__(self, count: CountOrZero = 20, tokens: Count = 20) -> None:
        self.count, self.tokens = count, tokens
        # What the test of the unedited and of the edited model wrote, and of which module.
        self._written: dict[bool, Texts] = {}
        self._module: weakref.ref[Any] | None = None

    def on_test_start(self, trainer: Trainer, pl_module: EditingRun) -> None:
        """Forgets what an earlier test of the same stage, or of another module, wrote."""
        super().on_test_start(trainer, pl_module)
        if self._module is None or self._module() is not pl_module:
            self._written, self._module = {}, weakref.ref(pl_module)
        self._written[bool(pl_module.loop.edits_written)] = {}

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: EditingRun, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Keeps what was written, where all edits are to be shown; of many edits it would be kept in vain."""
        super().on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        settings = pl_module.evaluation
        alike = settings.generated_match and settings.match_tokens == self.tokens
        if alike and len(trainer.datamodule.measured) <= self.count:
            texts = self._written.setdefault(bool(pl_module.loop.edits_written), {})
            texts |= {name_of(record): record["continuation"] for record in outputs["records"]}

    def on_test_end(self, trainer: Trainer, pl_module: EditingRun) -> None:
        """Shows the edited model's answers beside those from before the run."""
        requests = trainer.datamodule.measured
        chosen = self._chosen(requests) if pl_module.loop.edits_written else []
        if not chosen:
            return
        # All processes write, for each may hold a part of the model only.
        with pl_module.timed("examples"):
            before, after = self._kept(chosen, False), self._kept(chosen, True)
            if before is None:
                with pl_module.loop.before_run():
                    before = self._answers(pl_module, chosen)
            if after is None:
                after = []
                for part in pl_module.loop.written_together(chosen):
                    with pl_module.loop.as_edited(part):
                        after += self._answers(pl_module, part)
        if trainer.is_global_zero:
            self._print(chosen, before, after, len(requests))

    def _chosen(self, requests: Sequence[EditRequest]) -> Sequence[EditRequest]:
        if len(requests) <= self.count:
            return requests
        return heapq.nsmallest(self.count, requests, key=lambda one: name_of(vars(one)) not in self._failed)

    def _kept(self, chosen: Sequence[EditRequest], edited: bool) -> list[str] | None:
        """What the test has written to these edits; None where it has not to all of them."""
        texts, names = self._written.get(edited, {}), [name_of(vars(request)) for request in chosen]
        return [texts[name] for name in names] if all(name in texts for name in names) else None

    def _print(self, requests: Sequence[EditRequest], before: Sequence[str], after: Sequence[str], of_all: int) -> None:
        table = Table("prompt", "target", "before", "after", caption_justify="left")
        for request, old, new in zip(requests, before, after, strict=True):
            answers = (said(old, request.target_new), said(new, request.target_new))
            table.add_row(*cells([request.rewrite_prompt, request.target_new, *answers]))
        if len(requests) < of_all:
            failures = f"{counted(len(self._failed), 'edit')} of {of_all:,} failed"
            table.caption = f"{len(requests)} of {counted(of_all, 'edit')}, failures first; {failures}"
        terminal().print(table)

    @torch.no_grad()
    def _answers(self, module: EditingRun, requests: Sequence[EditRequest]) -> list[str]:
        tokenizer, prompts = module.tokenizer, [request.rewrite_prompt for request in requests]
        room = [
            room_of(tokenizer, self.tokens, request, prompt, request.target_new)
            for request, prompt in zip(requests, prompts, strict=True)
        ]
        return generate(module.decoder, tokenizer, prompts, room)


def said(text: str, target: str) -> str:
    """The first sentence of an answer, or as many as it takes to say the target, where the answer says it at all.

    Args:
        text: What the model wrote.
        target: The new answer.
    """
    shown, rest, says = "", text.strip(), generated_match(text, target)
    while rest and (not shown or (says and not generated_match(shown, target))):
        sentence = first_sentence(rest, words=1)
        shown, rest = f"{shown} {sentence}", rest[len(sentence) :].strip()
    return " ".join(shown.split()).removesuffix(".")
