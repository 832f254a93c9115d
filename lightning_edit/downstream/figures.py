"""From answers to figures: accuracy, F1 and Matthews correlation of choices."""

from collections.abc import Sequence

import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_f1_score,
    multiclass_matthews_corrcoef,
)


def likeliest(log_probs: Sequence[float]) -> int | None:
    """The index of the likeliest answer, the first of equals; None if a model broke down and says NaN.

    Args:
        log_probs: Of each answer.
    """
    scores = torch.tensor(log_probs, dtype=torch.float64)
    return None if scores.isnan().any() else int(scores.argmax())


def choice_figures(chosen: Sequence[int | None], right: Sequence[int], classes: int) -> dict[str, float]:
    """Accuracy, F1 weighted by how often each answer is right, and Matthews correlation.

    No answer counts as a further class that is never right: it is wrong, lowers the recall of the right answer, and
    takes part in the correlation, which is that of Gorodkin (2004) for several classes. Where all answers or all rows
    are of one class, the correlation is 0.

    Args:
        chosen: Index of the answer given to each row; None if there was none.
        right: Index of the right one.
        classes: How many answers there are.
    """
    given = torch.tensor([classes if choice is None else choice for choice in chosen])
    wanted = torch.tensor(right)
    figures = {
        "accuracy": multiclass_accuracy(given, wanted, classes + 1, average="micro"),
        "f1": multiclass_f1_score(given, wanted, classes + 1, average="weighted"),
        "mcc": multiclass_matthews_corrcoef(given, wanted, classes + 1),
    }
    # They come in float32; more digits would only say so.
    return {name: round(float(value), 7) for name, value in figures.items()}
