"""Whether, by how much and how surely a model prefers the answer it should give."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


def preference_update(wanted: Tensor, other: Tensor | None, correct: Tensor) -> Tensor:
    """The sums that one record adds to a preference.

    Args:
        wanted: ``(prompts,)`` log-probability of the answer the model should give, length-normalized, in nats.
        other: ``(prompts,)`` that of the answer it should not give; None if there is none to compare with.
        correct: ``(prompts,)`` whether all tokens of the wanted answer are the argmax.

    Returns:
        ``(5,)``: means over the record's prompts of score, magnitude and accuracy, then 1 if there was something to
        compare and 1 for the record.
    """
    score = magnitude = compared = wanted.new_zeros((), dtype=torch.float64)
    if other is not None:
        score = (wanted > other).double().mean()
        magnitude = (wanted.exp() - other.exp()).double().mean()
        compared = torch.ones_like(score)
    return torch.stack([score, magnitude, correct.double().mean(), compared, torch.ones_like(score)])


def preference_compute(sums: Tensor) -> dict[str, Tensor]:
    """Score, magnitude and accuracy as means over records of means over a record's prompts.

    Args:
        sums: ``(5,)`` as from `preference_update`, added up.

    Returns:
        ``score`` (share of prompts with P(wanted) > P(other)), ``magnitude`` (mean P(wanted) - P(other)) and
        ``accuracy``; those that cannot be measured are left out.
    """
    score, magnitude, accuracy, compared, records = sums
    found: dict[str, Tensor] = {}
    if compared > 0:
        found |= {"score": score / compared, "magnitude": magnitude / compared}
    if records > 0:
        found |= {"accuracy": accuracy / records}
    return found


class Preference(Metric):
    """Score, magnitude and accuracy of one kind of prompt (ES/EM/EA, PS/PM/PA, NS/NM/NA of ROME, section 3.3).

    Each record counts once, however many prompts of the kind it has, as in the published summaries.

    Example:
        >>> preference = Preference()
        >>> wanted, other = torch.tensor([0.5, 0.2]).log(), torch.tensor([0.25, 0.4]).log()
        >>> preference.update(wanted, other, torch.tensor([True, False]))
        >>> {name: round(float(value), 3) for name, value in preference.compute().items()}
        {'score': 0.5, 'magnitude': 0.025, 'accuracy': 0.5}
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("sums", torch.zeros(5, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, wanted: Tensor, other: Tensor | None, correct: Tensor) -> None:
        """Adds the prompts of one record; see `preference_update` for the arguments."""
        self.sums += preference_update(wanted, other, correct).to(self.sums.device)

    def compute(self) -> dict[str, Tensor]:
        """See `preference_compute`."""
        return preference_compute(self.sums)
