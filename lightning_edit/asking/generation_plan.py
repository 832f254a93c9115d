"""Which prompts are continued together, and behind which shared heads, so that generation costs least."""

import inspect
from collections.abc import Sequence
from functools import partial

import torch

from lightning_edit.models.batches import by_length, tokens_of_a_pass
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.prefixes.shared_prefixes import common_prefix, prefix_lengths


def may_pad(decoder: Decoder, longest: int) -> bool:
    """Whether padding may stand between a head and what follows it.

    There it moves tokens away from their head: where positions are counted in columns, and where a window ends within
    the text, they would see less of it.

    Args:
        decoder: The model.
        longest: Tokens of the longest text.
    """
    config = decoder.model.config.get_text_config()
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size", "window_size")]
    counted = "position_ids" in inspect.signature(decoder.model.forward).parameters
    return counted and all(not isinstance(window, int) or window >= 2 * longest for window in windows)


def head_lengths(rows: Sequence[Sequence[int]], room: Sequence[int], device: torch.device, padded: bool) -> list[int]:
    """The length of each row's shared head, such that all together cost least: many heads, one that all share, or none.

    Behind a head rows of one length go together, unless padding may stand between the two, see `may_pad`.

    Args:
        rows: Token ids of the prompts.
        room: For each how many tokens may be written.
        device: Where the model is.
        padded: Whether padding may stand there.
    """
    cost = partial(_cost, rows, room, tokens_of_a_pass(device), padded)
    choices = [[0] * len(rows), prefix_lengths([row[:-1] for row in rows])]
    return min([*choices, [common_prefix(rows)] * len(rows)] if rows else choices, key=cost)


def _cost(rows: Sequence[Sequence[int]], room: Sequence[int], a_pass: int, padded: bool, lengths: Sequence[int]) -> int:
    """What it costs to continue rows behind heads of some lengths, in tokens."""
    members: dict[tuple[int, ...], list[int]] = {}
    for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        members.setdefault(tuple(row[:length]), []).append(i)
    cost = 0
    for head, those in members.items():
        groups = 1 if padded or not head else len({len(rows[i]) for i in those})
        cost += (len(head) + a_pass) * bool(head) + groups * (1 + max(room[i] for i in those)) * a_pass
        cost += sum(len(rows[i]) - len(head) for i in those)
    return cost


def groups_with_room(
    lengths: Sequence[int], room: Sequence[int], context: int | None, max_tokens: int
) -> list[list[int]]:
    """Prompts of similar length together, such that the longest has room for as much as the shortest may write.

    Args:
        lengths: Of the prompts, in tokens.
        room: For each how many tokens may be written.
        context: The model's, in tokens; None where it has no fixed one.
        max_tokens: Most tokens of a batch, padding and new ones included.

    Returns:
        Indices of prompts.
    """
    groups: list[list[int]] = []
    count = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], -room[i], i)):
        longest, count = lengths[groups[-1][0]] if groups else 0, max(count, room[index])
        fits = context is None or longest + count <= context
        if groups and fits and (len(groups[-1]) + 1) * (longest + count) <= max_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
            count = room[index]
    return groups


def by_equal_length(groups: Sequence[list[int]], rows: Sequence[list[int]]) -> list[list[int]]:
    """Splits groups so that none needs padding.

    Args:
        groups: Indices of prompts.
        rows: Token ids of the prompts.
    """
    return [
        [group[i] for i in part]
        for group in groups
        for part in by_length([len(rows[i]) for i in group], 2**62, padding=0)
    ]
