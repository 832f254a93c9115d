"""Figures of one record from the answers it was scored on."""

from torch import Tensor


def preference(wanted: Tensor, other: Tensor | None, correct: Tensor) -> dict[str, float]:
    """Score, magnitude and accuracy of one record, as means over its prompts of one kind (ROME, section 3.3).

    ES, EM and EA of the paper for the rewrite prompt, PS, PM and PA for paraphrases, NS, NM and NA for neighbors.

    Args:
        wanted: ``(prompts,)`` log-probability of the answer the model should give, length-normalized, in nats.
        other: ``(prompts,)`` that of the answer it should not give; None if there is none to compare with.
        correct: ``(prompts,)`` whether all tokens of the wanted answer are the argmax.

    Returns:
        ``score`` (share of prompts with P(wanted) > P(other)), ``magnitude`` (mean P(wanted) - P(other)) and
        ``accuracy`` (share of correct ones); the first two are left out where there is nothing to compare.

    Example:
        >>> import torch
        >>> wanted, other = torch.tensor([0.5, 0.2]).log(), torch.tensor([0.25, 0.4]).log()
        >>> figures = preference(wanted, other, torch.tensor([True, False]))
        >>> {name: round(value, 3) for name, value in figures.items()}
        {'accuracy': 0.5, 'score': 0.5, 'magnitude': 0.025}
    """
    figures = {"accuracy": float(correct.double().mean())}
    if other is not None:
        figures["score"] = float((wanted > other).double().mean())
        figures["magnitude"] = float((wanted.exp() - other.exp()).double().mean())
    return figures


def token_accuracy(tokens_correct: Tensor, tokens: Tensor) -> float:
    """Teacher-forced token accuracy of one record: mean over prompts of the share of answer tokens that are the argmax.

    The figure of zsRE: efficacy, paraphrase and specificity (ROME, section 3.2; MEMIT, section 5). It is kinder than
    the accuracy of `preference`, which wants all tokens of an answer.

    Args:
        tokens_correct: ``(prompts,)`` number of answer tokens that are the argmax.
        tokens: ``(prompts,)`` number of answer tokens.

    Example:
        >>> import torch
        >>> token_accuracy(tokens_correct=torch.tensor([1, 2]), tokens=torch.tensor([2, 2]))
        0.75
    """
    return float((tokens_correct.double() / tokens.double()).mean())


def locality(tokens_correct: Tensor, tokens: Tensor, tokens_unchanged: Tensor | None = None) -> dict[str, float]:
    """How unrelated questions are answered: as the data set says, and as before; means over the prompts of a record.

    All predictions are teacher-forced on the data set's answer, so edited and unedited model see the same tokens. A
    model that answered wrongly before and answers the same now has an accuracy of 0 and is unchanged to 1.

    Args:
        tokens_correct: ``(prompts,)`` number of answer tokens that are the argmax.
        tokens: ``(prompts,)`` number of answer tokens.
        tokens_unchanged: ``(prompts,)`` number of answer positions whose argmax is that of the unedited model; None
            if that is unknown.

    Returns:
        ``token_accuracy`` against the data set's answer (zsRE's specificity in ROME and MEMIT) and ``unchanged``
        against the unedited model (locality in MEND and EasyEdit).

    Example:
        >>> import torch
        >>> locality(torch.tensor([1]), torch.tensor([4]), torch.tensor([3]))
        {'token_accuracy': 0.25, 'unchanged': 0.75}
    """
    figures = {"token_accuracy": token_accuracy(tokens_correct, tokens)}
    if tokens_unchanged is not None:
        figures["unchanged"] = token_accuracy(tokens_unchanged, tokens)
    return figures
