"""All teacher-forced figures of a set of edits in one torchmetrics object."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_edit.metrics.preference import preference_compute, preference_update
from lightning_edit.requests import EditRequest

KINDS = ("efficacy", "paraphrase", "neighborhood", "attribute")
IN_SCORE = ("efficacy", "paraphrase", "neighborhood")


def prompts_of(request: EditRequest, kind: str) -> tuple[str, ...]:
    """The prompts of one kind that a record brings.

    Args:
        request: The edit.
        kind: One of `KINDS`.
    """
    return {
        "efficacy": (request.rewrite_prompt,),
        "paraphrase": request.paraphrase_prompts,
        "neighborhood": request.neighborhood_prompts,
        "attribute": request.attribute_prompts,
    }[kind]


def answers_of(request: EditRequest, kind: str) -> tuple[str | None, str | None]:
    """The answer the edited model should give to prompts of a kind, and the one it should not.

    Neighbors keep the true answer: there the roles are swapped.

    Args:
        request: The edit.
        kind: One of `KINDS`.
    """
    answers = (request.target_new, request.target_true)
    return answers[::-1] if kind == "neighborhood" else answers


def harmonic_mean(values: Sequence[Tensor]) -> Tensor:
    """The harmonic mean of shares, 0 as soon as one of them is 0.

    Args:
        values: Scalars between 0 and 1.
    """
    stacked = torch.stack(list(values))
    return stacked.new_zeros(()) if bool((stacked <= 0).any()) else len(values) / (1 / stacked).sum()


class EditMetrics(Metric):
    """Efficacy, paraphrase, neighborhood and attribute figures, and S, the harmonic mean of the first three scores.

    States are sums, so processes that each saw some of the records agree on the result. Figures are shares from 0 to 1
    named ``efficacy_score``, ``efficacy_magnitude``, ``efficacy_accuracy`` and so on, and ``S``; what the records
    cannot tell is left out.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("sums", torch.zeros(len(KINDS), 5, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, kind: str, wanted: Tensor, other: Tensor | None, correct: Tensor) -> None:
        """Adds one record's prompts of a kind.

        Args:
            kind: One of `KINDS`.
            wanted: ``(prompts,)`` log-probabilities of the right answer.
            other: ``(prompts,)`` of the wrong one, None if unknown.
            correct: ``(prompts,)`` whether the right answer is the argmax.
        """
        self.sums[KINDS.index(kind)] += preference_update(wanted, other, correct).to(self.sums.device)

    def compute(self) -> dict[str, Tensor]:
        """All figures that can be measured."""
        found = {
            f"{kind}_{name}": value
            for kind, sums in zip(KINDS, self.sums, strict=True)
            for name, value in preference_compute(sums).items()
        }
        scores = [found[f"{kind}_score"] for kind in IN_SCORE if f"{kind}_score" in found]
        if len(scores) == len(IN_SCORE):
            found["S"] = harmonic_mean(scores)
        return found
