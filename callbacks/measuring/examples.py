"""Edits in the model's own words, before and after."""

import heapq
import re
from collections.abc import Sequence

import torch
from lightning.pytorch import Trainer
from rich.table import Table

from lightning_edit.asking.generation import generate
from lightning_edit.callbacks.failed_edits import NotesFailures
from lightning_edit.messages import cells, counted, terminal
from lightning_edit.metrics.edit_metrics import name_of
from lightning_edit.metrics.generated_text import generated_match
from lightning_edit.requests import EditRequest
from lightning_edit.run.edit_callback import EditingRun
from lightning_edit.settings import Checked, Count, CountOrZero


class ShowExamples(Checked, NotesFailures):
    """Prints what the model answers by itself (greedily) to the edited prompts, before and after the run.

    All edits are shown where they are no more than `count`; otherwise the ones that failed come first.

    Args:
        count: How many edits to show at most.
        tokens: How many tokens to generate for each.
    """

    def __init__(self, count: CountOrZero = 20, tokens: Count = 20) -> None:
        self.count, self.tokens = count, tokens

    def on_test_end(self, trainer: Trainer, pl_module: EditingRun) -> None:
        """Shows the edited model's answers beside those from before the run."""
        requests = trainer.datamodule.measured
        chosen = self._chosen(requests) if pl_module.loop.edits_written else []
        if not chosen:
            return
        # All processes write, for each may hold a part of the model only.
        with pl_module.timed("examples"):
            with pl_module.loop.before_run():
                before = self._answers(pl_module, chosen)
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
        prompts = [request.rewrite_prompt for request in requests]
        return generate(module.decoder, module.tokenizer, prompts, self.tokens)


def said(text: str, target: str) -> str:
    """The first sentence of an answer, or as many as it takes to say the target, where the answer says it at all.

    Args:
        text: What the model wrote.
        target: The new answer.
    """
    sentences = re.split(r"(?<=[.\n])", text.strip())
    shown = sentences[0]
    for sentence in sentences[1:]:
        if generated_match(shown, target) or not generated_match(text, target):
            break
        shown += sentence
    return " ".join(shown.split()).removesuffix(".")
