"""A few edits in the model's own words, before and after."""

import re
from collections.abc import Sequence

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from rich.table import Table

from lightning_edit.messages import cells, terminal
from lightning_edit.models.tokenization import encode
from lightning_edit.requests import EditRequest
from lightning_edit.run.edit_callback import EditingRun
from lightning_edit.settings import Checked, Count, CountOrZero


class ShowExamples(Checked, Callback):
    """Prints what the model answers by itself (greedily) to the first rewrite prompts, unedited and edited.

    Args:
        count: How many edits to show.
        tokens: How many tokens to generate for each.
    """

    def __init__(self, count: CountOrZero = 3, tokens: Count = 4) -> None:
        self.count, self.tokens = count, tokens
        self._before: list[str] = []

    def on_test_end(self, trainer: Trainer, pl_module: EditingRun) -> None:
        """Notes the unedited model's answers; prints them beside the edited model's."""
        requests = trainer.datamodule.measured[: self.count]
        answers = []
        # All processes write, for each may hold a part of the model only.
        for request in requests:
            with pl_module.loop.as_edited([request]):
                answers.append(self._answer(pl_module, request.rewrite_prompt))
        if not pl_module.loop.edits_written:
            self._before = answers
        elif trainer.is_global_zero:
            self._print(requests, answers)

    def _print(self, requests: Sequence[EditRequest], answers: Sequence[str]) -> None:
        table = Table("prompt", "target", *(["before"] if self._before else []), "after")
        for i, (request, answer) in enumerate(zip(requests, answers, strict=True)):
            table.add_row(*cells([request.rewrite_prompt, request.target_new, *self._before[i : i + 1], answer]))
        terminal().print(table)

    @torch.no_grad()
    def _answer(self, module: EditingRun, prompt: str) -> str:
        ids, _ = encode(module.tokenizer, prompt)
        inputs = torch.tensor([ids], device=module.decoder.device)
        generated = module.model.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=self.tokens,
            do_sample=False,
            pad_token_id=module.tokenizer.pad_token_id or 0,
        )
        text = module.tokenizer.decode(generated[0, len(ids) :], skip_special_tokens=True)
        return re.split(r"[.\n]", text.strip())[0]
