"""Edits that are given more than once, and edits that contradict each other."""

import logging
from collections.abc import Sequence
from dataclasses import replace as with_changes
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.messages import counted, quoted
from lightning_edit.requests import TEXT_LISTS, EditRequest, fact_of, repeated, sentence_of

logger = logging.getLogger(__name__)

TESTS = (*TEXT_LISTS, "locality", "ripples")


def repetitions(requests: Sequence[EditRequest], replace: bool = False) -> tuple[set[int], dict[int, EditRequest]]:
    """Which requests are exact repetitions of earlier ones.

    Args:
        requests: All edits of one run.
        replace: Whether a later request may give the same subject and prompt another target and so replace an earlier
            one. A repetition is then what asks for the answer that holds already: going back to an earlier answer is
            an edit.

    Returns:
        The positions of later copies of the same edit, which are to be left out (there is a warning). What such a copy
        tests, the first one tests too: by position the requests that get further tests.

    Raises:
        EditError: Unless they may replace each other, if two requests give one sentence (see `sentence_of`)
            different targets: no weight can answer both.
    """
    holds: dict[tuple[str, str], tuple[int, EditRequest]] = {}
    answers: dict[str, EditRequest] = {}
    gone: set[int] = set()
    changed: dict[int, EditRequest] = {}
    for position in repeated(requests):
        request = requests[position]
        fact, sentence = fact_of(request), sentence_of(request)
        place, earlier = holds.get(fact, (position, None))
        if earlier is not None and earlier.target_new == request.target_new:
            gone.add(position)
            if further := _further_tests(earlier, request):
                changed[place] = with_changes(earlier, **further)
                holds[fact] = place, changed[place]
            continue
        rival = answers.setdefault(sentence, request)
        if rival.target_new != request.target_new and not replace:
            raise EditError(
                f"{rival.name} and {request.name} ask for different answers to {quoted(request.rewrite_prompt)}: "
                f"{quoted(rival.target_new)} and {quoted(request.target_new)}. Keep one of them."
            )
        holds[fact] = position, request
    if gone:
        logger.warning("%s given more than once; each is made once.", counted(len(gone), "edit was", "edits were"))
    return gone, changed


def _further_tests(earlier: EditRequest, request: EditRequest) -> dict[str, Any]:
    """The lists of both in which the later one has more."""
    both: dict[str, Any] = {}
    for name in TESTS:
        own, given = getattr(earlier, name), getattr(request, name)
        if own != given and (more := [entry for entry in given if entry not in own]):
            both[name] = (*own, *dict.fromkeys(more))
    return both


def distinct(requests: Sequence[EditRequest], replace: bool = False) -> list[EditRequest]:
    """The requests without exact repetitions, in their order; see `repetitions`.

    Args:
        requests: All edits of one run.
        replace: Whether a later request may give the same subject and prompt another target.

    Raises:
        EditError: See `repetitions`.
    """
    gone, changed = repetitions(requests, replace)
    return [changed.get(place, request) for place, request in enumerate(requests) if place not in gone]
