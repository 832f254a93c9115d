"""Token lists of different lengths as padded tensors, with nothing left to a model's defaults."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenBatch:
    """Texts padded to the right for a decoder-only model.

    Args:
        input_ids: ``(rows, length)``.
        real: ``(rows, length)``, false for padding.
        position_ids: ``(rows, length)``, counted in real tokens.
    """

    input_ids: Tensor
    real: Tensor
    position_ids: Tensor

    def inputs(self) -> dict[str, Any]:
        """Keyword arguments of the model's forward; what else tokenizers offer, GPT-2 would add to its embeddings.

        The mask is all ones: to the right, causality alone keeps padding out of sight. Masked padding can attend to
        nothing where attention has a window, and some attentions answer that with NaN, which a weight of zero does not
        silence.
        """
        return {
            "input_ids": self.input_ids,
            "attention_mask": torch.ones_like(self.input_ids),
            "position_ids": self.position_ids,
            "use_cache": False,
        }


def pad(rows: Sequence[Sequence[int]], device: torch.device) -> TokenBatch:
    """Pads token lists to the right.

    Args:
        rows: Token ids of each text.
        device: Where the tensors go.
    """
    length = max((len(row) for row in rows), default=0)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    real = torch.zeros(len(rows), length, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        real[i, : len(row)] = True
    positions = (real.cumsum(1) - 1).clamp(min=0)
    return TokenBatch(ids.to(device), real.to(device), positions.to(device))


def by_length(lengths: Sequence[int], max_tokens: int, padding: int | None = None) -> list[list[int]]:
    """Groups texts of similar length so that padding is small and memory bounded.

    Args:
        lengths: Number of tokens of each text.
        max_tokens: Most tokens, padding included, in one group (a longer text gets a group of its own).
        padding: Texts of one length join longer ones only if that takes at most so many tokens of padding; None for any
            number. A group by itself costs a pass over the weights, about as much as some tens of tokens.

    Returns:
        Lists of indices into ``lengths``, longest texts first, so that a lack of memory shows at once.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    count = Counter(lengths)
    groups: list[list[int]] = []
    for place, index in enumerate(order):
        longest, length = lengths[groups[-1][0]] if groups else 0, lengths[index]
        fits = bool(groups) and (len(groups[-1]) + 1) * longest <= max_tokens
        begins = place > 0 and length != lengths[order[place - 1]]
        if fits and not (begins and padding is not None and (longest - length) * count[length] > padding):
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def tokens_of_a_pass(device: torch.device) -> int:
    """About how many tokens take as long as a pass by itself, which reads all weights and starts every operation.

    So much padding is worth one pass less. Measured on two cores with 124 M parameters; on a GPU, where tokens cost
    less and starting an operation more, it is an estimate for some billions.

    Args:
        device: Where the model runs.
    """
    return 32 if device.type == "cpu" else 512


@contextmanager
def without_mask_warning() -> Iterator[None]:
    """Silences transformers' warning of a missing attention mask, where ``generate`` was given one.

    ``generate`` drops a mask of ones before it calls the model, which then takes a first token that is also the padding
    token for padding.
    """
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(_is_other_warning)
    try:
        yield
    finally:
        logger.removeFilter(_is_other_warning)


def _is_other_warning(record: logging.LogRecord) -> bool:
    return "passing in an `attention_mask`" not in record.getMessage()
