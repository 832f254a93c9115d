"""Token lists of different lengths as padded tensors, with nothing left to a model's defaults."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenBatch:
    """What a decoder-only model is given: ids, mask and positions, each ``(rows, length)``.

    A model gets only these three. Some tokenizers also return ``token_type_ids``, which GPT-2 silently adds to its
    embeddings.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor

    def inputs(self) -> dict[str, Any]:
        """Keyword arguments of the model's forward."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
        }


def pad(rows: Sequence[Sequence[int]], device: torch.device, side: Literal["left", "right"] = "right") -> TokenBatch:
    """Pads token lists to one length; positions count real tokens only, so either side gives the same answers.

    Args:
        rows: Token ids of each text.
        device: Where the tensors go.
        side: Where the padding goes.
    """
    length = max((len(row) for row in rows), default=0)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros(len(rows), length, dtype=torch.long)
    for i, row in enumerate(rows):
        where = slice(length - len(row), length) if side == "left" else slice(0, len(row))
        ids[i, where] = torch.tensor(row, dtype=torch.long)
        mask[i, where] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return TokenBatch(ids.to(device), mask.to(device), positions.to(device))


def by_length(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Groups texts of similar length so that padding is small and memory bounded.

    Args:
        lengths: Number of tokens of each text.
        max_tokens: Most tokens, padding included, in one group (a longer text gets a group of its own).

    Returns:
        Lists of indices into ``lengths``, longest texts first, so that a lack of memory shows at once.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= max_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
