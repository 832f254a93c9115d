"""How well a model predicts text: perplexity in windows, and of texts about the edited subject."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_edit.asking.tokenization import encode
from lightning_edit.errors import EditError
from lightning_edit.metrics.token_scores import score_tokens
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report, silent


def cut_windows(
    ids: Sequence[int], leading: Sequence[int], window: int, stride: int | None = None
) -> list[tuple[list[int], int]]:
    """Cuts a text into windows such that each of its tokens is predicted at most once.

    Args:
        ids: The tokens of the text, without leading special ones.
        leading: The special tokens (BOS) that every window begins with; they are never predicted.
        window: Most tokens of a window, special ones included.
        stride: By how many tokens a window begins after the one before, of which it sees the others again; None for
            windows that do not overlap.

    Returns:
        The tokens of each window and the first that is predicted there. What has nothing at all before it is not
        predicted: without a special token the first of the text and, without overlap, of each window.
    """
    size = window - len(leading)
    stride = size if stride is None else stride
    windows = []
    for begin in range(0, len(ids), stride):
        overlap = 0 if begin == 0 else size - stride
        windows.append(([*leading, *ids[begin : begin + size]], max(1, len(leading) + overlap)))
        if begin + size >= len(ids):
            break
    return windows


def perplexity(
    decoder: Decoder,
    tokenizer: Any,
    texts: Sequence[str],
    window: int = 1024,
    stride: int | None = None,
    report: Report = silent,
) -> float:
    """``exp(mean NLL)`` over all predicted tokens of running text, in windows; see `cut_windows` for what is predicted.

    The mean is over the N - 1 predicted of a window's N tokens, where the published code divides by N.

    Args:
        decoder: The model as it is now.
        tokenizer: Its fast tokenizer; every window begins with the special tokens that it gives to a text.
        texts: The texts; no window spans two of them, so short ones are better joined.
        window: Most tokens of a window; a shorter context of the model makes it shorter.
        stride: None for windows that do not overlap, fewer tokens for windows that see more context.
        report: Called with the number of tokens that the model has read.

    Raises:
        EditError: If a setting is out of range, or there is nothing to predict.
    """
    window = window if decoder.context is None else min(window, decoder.context)
    cut = [part for text in texts for part in _windows_of(tokenizer, text, window, stride)]
    scores = score_tokens(decoder, [ids for ids, _ in cut], [start for _, start in cut], report, "perplexity (tokens)")
    if not len(scores.log_probs):
        raise EditError("There is no token to predict in the texts given; give longer ones.")
    return perplexity_of(-scores.log_probs)


def _windows_of(tokenizer: Any, text: str, window: int, stride: int | None) -> list[tuple[list[int], int]]:
    ids, offsets = encode(tokenizer, text)
    # A special token covers no character.
    first = next((i for i, (_, end) in enumerate(offsets) if end > 0), len(ids))
    size = window - first
    if size < 1 or window < 2:
        raise EditError(f"`window` must leave room for a token to predict, got {window} tokens.")
    if stride is not None and not 1 <= stride <= size:
        raise EditError(f"`stride` must be from 1 to the {size} tokens of text in a window, got {stride}.")
    return cut_windows(ids[first:], ids[:first], window, stride)


def perplexity_of(nll: Tensor) -> float:
    """Perplexity ``exp(mean NLL)``; of the texts about an edited subject it is the essence score of ROME (appendix B).

    A model that has forgotten who the subject is finds such texts less likely than before.

    Args:
        nll: ``(tokens,)`` negative log-likelihood of each predicted token, in nats.

    Example:
        >>> import torch
        >>> round(perplexity_of(torch.tensor([0.5, 0.25, 0.25]).log().neg()), 3)
        3.175
    """
    return float(nll.double().mean().exp())


def perplexity_error(nll: Sequence[Tensor]) -> float | None:
    """Standard error of the perplexity of a text from how far its windows differ; None for a single window.

    Tokens of a window depend on each other, so windows are what is drawn. By the delta method it is the perplexity
    times the standard error of the mean NLL, a ratio of two sums over windows.

    Args:
        nll: For each window the negative log-likelihoods of its tokens, in nats.
    """
    if len(nll) < 2:
        return None
    totals = torch.stack([window.double().sum() for window in nll])
    counts = torch.tensor([float(len(window)) for window in nll], dtype=torch.float64, device=totals.device)
    mean = totals.sum() / counts.sum()
    squares = (totals - mean * counts).square().sum() * len(nll) / (len(nll) - 1)
    return float(mean.exp() * squares.sqrt() / counts.sum())


def essence_nll(
    decoder: Decoder, tokenizer: Any, texts: Sequence[Sequence[str]], length: int, report: Report = silent
) -> list[Tensor]:
    """What the model thinks of the essence texts of records, each record's joined and cut.

    Args:
        decoder: The model as it is now.
        tokenizer: Its fast tokenizer. A special token (BOS) that it begins texts with counts as one of ``length``, is
            read and not predicted.
        texts: For each record its essence texts, joined by spaces.
        length: Tokens of the joined text that are read, 100 in the published code.
        report: Called with the number of tokens that the model has read.

    Returns:
        For each record the negative log-likelihoods ``(tokens - 1,)`` of all tokens but the first, in nats.
    """
    length = length if decoder.context is None else min(length, decoder.context)
    rows = [encode(tokenizer, " ".join(record))[0][:length] for record in texts]
    scores = score_tokens(decoder, rows, [1] * len(rows), report, "essence texts (tokens)")
    return list((-scores.log_probs).split(scores.counts.tolist()))
