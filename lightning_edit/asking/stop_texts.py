"""Texts that end a continuation, such as a full stop: generation ends there, and what follows is cut off."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria


class StopTexts(StoppingCriteria):
    """Ends each row of a batch as soon as one of some texts stands in what was written.

    The texts are looked for in the written text and not among the tokens: a token may hold more than the stop, as ``.``
    and a new line in one.

    Args:
        tokenizer: A fast transformers tokenizer.
        stops: The texts; none of them is empty.
        start: How many tokens of each row are its prompt, padding included.
        rows: How many rows there are.

    Attributes:
        lengths: For each row how many tokens it had written when it was done; None while it is not.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str], start: int, rows: int) -> None:
        self.tokenizer, self.stops, self.start = tokenizer, tuple(stops), start
        self.lengths: list[int | None] = [None] * rows

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        """Which rows are done."""
        going = [i for i, length in enumerate(self.lengths) if length is None]
        written = input_ids[going, self.start :]
        texts = self.tokenizer.batch_decode(written.tolist(), skip_special_tokens=True)
        for i, text in zip(going, texts, strict=True):
            if any(stop in text for stop in self.stops):
                self.lengths[i] = written.shape[1]
        return torch.tensor([length is not None for length in self.lengths], device=input_ids.device)


def cut_at(text: str, stops: Sequence[str]) -> str:
    r"""A text up to the first of some texts in it, which is left out.

    Args:
        text: What was written.
        stops: What ends it.

    Example:
        >>> cut_at(" Rome, the capital. It is", [".", "\n"])
        ' Rome, the capital'
    """
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))]
