"""Feeding the metrics: one batched pass over all prompts of a set of edits."""

from collections.abc import Sequence
from typing import Any

from lightning_edit.architectures import Decoder
from lightning_edit.metrics.edit_metrics import KINDS, EditMetrics, answers_of, prompts_of
from lightning_edit.metrics.teacher_forcing import score_targets
from lightning_edit.requests import EditRequest


def evaluate(decoder: Decoder, tokenizer: Any, requests: Sequence[EditRequest], metrics: EditMetrics) -> None:
    """Scores both answers to every prompt of the requests and updates the metrics.

    Args:
        decoder: The model as it is now.
        tokenizer: Its fast tokenizer.
        requests: The edits to measure.
        metrics: Updated; compute them when all requests are through.

    Raises:
        EditError: If a prompt does not fit the model's context.
    """
    asked: dict[tuple[str, str], int] = {}
    uses: list[tuple[str, list[int], list[int]]] = []
    for request in requests:
        for kind in KINDS:
            prompts = prompts_of(request, kind)
            wanted, other = answers_of(request, kind)
            if not prompts or wanted is None:
                continue
            right = [asked.setdefault((prompt, wanted), len(asked)) for prompt in prompts]
            wrong = [asked.setdefault((prompt, other), len(asked)) for prompt in prompts if other is not None]
            uses.append((kind, right, wrong))
    if not asked:
        return
    scores = score_targets(decoder, tokenizer, list(asked))
    for kind, right, wrong in uses:
        others = scores.log_probs[wrong] if wrong else None
        metrics.update(kind, scores.log_probs[right], others, scores.correct[right])
