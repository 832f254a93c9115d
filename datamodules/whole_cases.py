"""Data sets whose records are cases of several edits that belong together: a run has all edits of a case, or none."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TypeVar

from lightning_edit.datamodules import selection
from lightning_edit.datamodules.base import EditDataModule
from lightning_edit.datamodules.selection import Entry, LeftOut
from lightning_edit.errors import EditError
from lightning_edit.messages import listed
from lightning_edit.requests import EditRequest, fact_of
from lightning_edit.ripples import Ripple
from lightning_edit.stored_requests import without

AS_A_WHOLE = "and a case is edited as a whole"
CONTRADICTS = f"an edit of theirs contradicts {{}} (`conflicts: {{}}`), {AS_A_WHOLE}"
KEEP_FIRST = CONTRADICTS.format("an earlier one", "keep_first")
REPLACE = CONTRADICTS.format("a later one", "replace")
Targets = dict[Hashable, str]
T = TypeVar("T", EditRequest, Entry)


class WholeCases(EditDataModule):
    """Keeps the edits of a case together; stands before `RecordDataModule` among the bases of a data set.

    What tells cases apart is the place in the file that their edits have from there (``where``), and the last edit of a
    case is the one that has no ``more`` behind it. A case of which an
    edit conflicts is left out whole: the later one with ``conflicts: keep_first``, the earlier one with ``replace``,
    unless it is a single edit. A `limit` ends before a case of which it would cut some edits off, and `indices` must
    name all edits of a case.
    """

    way_out = (
        "`data.conflicts: keep_first` keeps the first of both, `replace` the last. A case of several edits is kept or "
        "left out as a whole."
    )

    def entries_at(self, wanted: Sequence[int]) -> Iterator[Entry]:
        """Some edits, in the order asked for; see `EditDataModule.entries_at`.

        Args:
            wanted: Their positions among all, counted from 0.

        Raises:
            EditError: See `at_positions`, and if edits of a case are missing, or stand apart from the others.
        """
        of_case: dict[int, range] = {}

        def noted() -> Iterator[Entry]:
            for case in _cases(self.load_requests()):
                own = range(len(of_case), len(of_case) + len(case))
                of_case.update(dict.fromkeys(own, own))
                yield from case

        chosen = list(selection.at_positions(noted(), wanted))
        start = 0
        for own, block in groupby(wanted, key=of_case.__getitem__):
            given = list(block)
            if set(given) != set(own):
                raise EditError(
                    f"`data.indices` counts edits. Those of {chosen[start].name} are {own[0]} to {own[-1]}, and the "
                    f"list has only {listed(given)} together. A case is edited as a whole: name all of its edits one "
                    "after the other, or choose cases by `data.case_ids`."
                )
            start += len(given)
        return iter(chosen)

    def _first_of_conflicts(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        targets: Targets = {}
        for case in _cases(entries):
            edits = [entry for entry in case if isinstance(entry, EditRequest)]
            if _agree(edits, targets):
                yield from case
            else:
                yield LeftOut(KEEP_FIRST, edits[0].name)

    def _limited(self, requests: Iterable[EditRequest]) -> Iterator[EditRequest]:
        left = self.limit
        for case in _cases(requests):
            if left is not None and len(case) > left:
                if left == self.limit:
                    raise EditError(
                        f"`data.limit` is {left}, and {case[0].name} has {len(case)} edits, {AS_A_WHOLE}. Set it to "
                        f"{len(case)} or more."
                    )
                if left:
                    self._leave_out(LeftOut(f"`limit` ends among their edits, {AS_A_WHOLE}", case[0].name))
                return
            yield from case
            left = None if left is None else left - len(case)
            if left == 0:
                return

    def _chosen(self) -> Sequence[EditRequest]:
        chosen = super()._chosen()
        if self.conflicts != "replace":
            return chosen
        cases: dict[str, list[int]] = {}
        for position, request in enumerate(chosen):
            cases.setdefault(request.where, []).append(position)
        gone: set[int] = set()
        targets: Targets = {}
        # In a random order the last edit of a case says when the case is made.
        for own in sorted(cases.values(), key=lambda own: own[-1], reverse=True):
            # A single edit is made and replaced: nothing else was to hold with it.
            if not _agree([chosen[position] for position in own], targets) and len(own) > 1:
                gone.update(own)
        for own in cases.values():
            if own[0] in gone:
                self._leave_out(LeftOut(REPLACE, chosen[own[0]].name))
        return without(chosen, gone)

    def _distinct(self, chosen: Sequence[EditRequest]) -> Sequence[EditRequest]:
        return asked_last(super()._distinct(chosen))


def refuse_torn_cases(shuffle: bool, limit: int | None, unique_subjects: bool) -> None:
    """Refuses to choose edits in a way that would tear cases apart.

    Args:
        shuffle: As in `EditDataModule`.
        limit: As there.
        unique_subjects: As there.

    Raises:
        EditError: Says what to change.
    """
    if unique_subjects or (shuffle and limit is not None):
        raise EditError(
            "A case of several edits would lose some of them, and its questions would be asked all the same: "
            "`data.unique_subjects` must be false, and `data.shuffle` goes with `data.limit: null` only. "
            "`data.case_ids` chooses whole cases."
        )


def tested(edits: Sequence[EditRequest], tests: Iterable[Ripple]) -> list[EditRequest]:
    """The edits of a case, of which the last one brings the case's tests.

    Args:
        edits: At least one.
        tests: These tests, which count only if all edits succeeded.
    """
    facts = tuple(dict.fromkeys(map(fact_of, edits)))
    own = tests if len(facts) == 1 else [replace(test, edits=facts) for test in tests]
    return [*edits[:-1], replace(edits[-1], ripples=(*edits[-1].ripples, *own))]


def asked_last(requests: Sequence[EditRequest]) -> Sequence[EditRequest]:
    """Gives each test of several edits to the last one of them, so that it is known of all whether they succeeded.

    The edit that brings a test may be one that an earlier case has too, and is made there.

    Args:
        requests: The edits of a run, each of them once.
    """
    places = {fact_of(request): position for position, request in enumerate(requests)}
    tests: dict[int, list[Ripple]] = {}
    for position, request in enumerate(requests):
        for test in request.ripples:
            last = max((places.get(fact, position) for fact in test.edits), default=position)
            if last != position:
                tests.setdefault(position, list(request.ripples)).remove(test)
                tests.setdefault(last, list(requests[last].ripples)).append(test)
    changed = {position: replace(requests[position], ripples=tuple(own)) for position, own in tests.items()}
    return without(requests, (), changed)


def _cases(entries: Iterable[T]) -> Iterator[list[T]]:
    """The neighbors that come from the same place; nothing behind a case is read before it is looked at."""
    case: list[T] = []
    for entry in entries:
        if case and _place(entry) != _place(case[-1]):
            yield case
            case = []
        case.append(entry)
        if isinstance(entry, EditRequest) and not entry.more:
            yield case
            case = []
    if case:
        yield case


def _place(entry: Entry) -> str:
    return entry.name if isinstance(entry, LeftOut) else entry.where


def _agree(edits: Sequence[EditRequest], targets: Targets) -> bool:
    """Whether edits contradict neither each other nor those whose targets are known; theirs are known from then on."""
    own: Targets = {}
    for edit in edits:
        fact, target = fact_of(edit), edit.target_new
        if own.setdefault(fact, target) != target or targets.get(fact, target) != target:
            return False
    targets.update(own)
    return True
