"""From answers to figures: reading generated text, and accuracy, F1 and Matthews correlation of choices."""

from collections.abc import Sequence

import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_f1_score,
    multiclass_matthews_corrcoef,
)

from lightning_edit.whole_words import find_whole


def find_answer(text: str, words: Sequence[str]) -> int | None:
    """The index of the first label word in a text, None if there is none.

    Words count as a whole and in any case, so that ``Not`` is no ``No``. A single letter must have its own case: with
    ``A`` among the answers, the article in ``a dog`` is none. Brackets do not matter: ``(A)`` and ``A)`` are ``A``.

    Args:
        text: What a model wrote.
        words: The label words.

    Example:
        >>> find_answer(" (B) because", ["A", "B"]), find_answer(" Nothing", ["Yes", "No"])
        (1, None)
    """
    found = [(find_whole(text, word, ignore_case=len(word) > 1), -len(word), i) for i, word in enumerate(words)]
    places = [(at[0], length, i) for at, length, i in found if at is not None]
    return min(places)[2] if places else None


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
