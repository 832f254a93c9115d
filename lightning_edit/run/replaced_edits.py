"""Edits of a subject and prompt that were edited before: the earlier ones are no longer preserved."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_edit.editor import Editor
from lightning_edit.requests import EditRequest
from lightning_edit.updates.history import History

logger = logging.getLogger(__name__)


def release_replaced(editor: Editor, histories: Sequence[History], requests: Sequence[EditRequest]) -> int:
    """Takes the keys of earlier edits that the given ones replace out of C_p, and says which these are.

    With its old key still in C_p, an edit of the same subject and prompt would be held back by the very fact that it
    is to replace.

    Args:
        editor: About to write the requests.
        histories: What was written before, the latest run first.
        requests: The edits of one update.

    Returns:
        How many edits are replaced.
    """
    replaced = []
    for request in requests:
        for history in histories:
            if found := history.find(request.subject, request.prompt):
                replaced.append((history, *found, request))
                break
    for history, number, column, target, request in replaced:
        logger.warning(
            "%s: %r replaces %r of update %d for %r.",
            request.name,
            request.target_new,
            target,
            number,
            request.rewrite_prompt,
        )
        if editor.previous_keys is not None:
            keys: dict[int, Tensor] = history.read(number).keys
            editor.release({layer: _column(found, column) for layer, found in keys.items()})
    return len(replaced)


def _column(keys: Tensor, column: int) -> Tensor:
    return keys[:, column : column + 1].clone().to(torch.float64)
