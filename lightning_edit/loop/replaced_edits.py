"""Edits of a subject and prompt that were edited before: the earlier ones are no longer preserved."""

import logging
from collections.abc import Sequence

from torch import Tensor

from lightning_edit.distributed.process_group import by_first
from lightning_edit.errors import EditError
from lightning_edit.loop.writer import Writer
from lightning_edit.requests import EditRequest
from lightning_edit.updates.files.update_form import kept_fact, possible_facts
from lightning_edit.updates.history import History

# Position of the request, number of the update that it replaces an edit of, that edit's target, and its keys.
Replaced = tuple[int, int, str, dict[int, Tensor]]

logger = logging.getLogger(__name__)


def valid_columns(histories: Sequence[History]) -> list[dict[int, list[int]]]:
    """Which edits of earlier runs no later one has replaced.

    Args:
        histories: What was written, the latest run first, each up to its `until`.

    Returns:
        For each history, and each update in it, the columns of the keys of those edits, ascending.
    """
    replaced: set[tuple[str, str]] = set()
    found = []
    for history in histories:
        valid: dict[int, list[int]] = {}
        for number in range(history.until or 0, 0, -1):
            edits = history.record(number).edits
            last = {kept_fact(edit): column for column, edit in enumerate(edits)}
            valid[number] = sorted(column for fact, column in last.items() if fact not in replaced)
            replaced.update(*map(possible_facts, edits))
        found.append(valid)
    return found


def release_replaced(
    editor: Writer, histories: Sequence[History], requests: Sequence[EditRequest], announced: bool = True
) -> int:
    """Takes the keys of earlier edits that the given ones replace out of C_p, and says which these are.

    With its old key still in C_p, an edit of the same subject and prompt would be held back by the very fact that it
    is to replace.

    Args:
        editor: About to write the requests.
        histories: What was written before, the latest run first.
        requests: The edits of one update.
        announced: Whether to log which edits are replaced.

    Returns:
        How many edits are replaced.
    """
    # The files of a run are those of the first process, and what is in C_p must be the same in all.
    replaced = by_first(lambda: _replaced(histories, requests, keys=editor.previous_keys is not None))
    for position, number, target, keys in replaced:
        request = requests[position]
        logger.log(
            logging.WARNING if announced else logging.DEBUG,
            "%s: %r replaces %r of update %d for %r.",
            request.name,
            request.target_new,
            target,
            number,
            request.rewrite_prompt,
        )
        if editor.previous_keys is not None:
            editor.release(keys)
    return len(replaced)


def _replaced(histories: Sequence[History], requests: Sequence[EditRequest], keys: bool) -> list[Replaced]:
    replaced: list[Replaced] = []
    for position, request in enumerate(requests):
        try:
            for history in histories:
                if found := history.find(request):
                    number, column, target = found
                    released = history.keys(number) if keys else {}
                    own = history.columns(number, column) if released else []
                    columns = {layer: all_keys[:, own].double() for layer, all_keys in released.items()}
                    replaced.append((position, number, target, columns))
                    break
        except EditError as error:
            # Nothing that was edited is lost with a file of an earlier update.
            logger.warning(
                "%s: if it replaces an earlier edit, that one's key stays preserved. %s", request.name, error
            )
    return replaced
