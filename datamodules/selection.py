"""Which records of a data set become the edits of a run."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_edit.datamodules.records import read_list
from lightning_edit.errors import EditError
from lightning_edit.messages import listed
from lightning_edit.requests import EditRequest, sentence_of


@dataclass(frozen=True)
class LeftOut:
    """A record that is no edit of the run, though nothing is wrong with the file.

    Args:
        reason: Why, to follow "records are left out: ".
        name: How messages call the record.
        case_id: Its own id, if it has one.
    """

    reason: str
    name: str = ""
    case_id: str = ""


Entry = EditRequest | LeftOut


def wanted_indices(given: Sequence[int] | str) -> list[int]:
    """The positions that ``data.indices`` asks for, counted from 0.

    Args:
        given: The positions, or a file that lists them.

    Raises:
        EditError: For an entry that is no position.
    """
    positions = []
    for value, where in _listed(given, "data.indices"):
        number = int(value) if isinstance(value, str) and value.isdecimal() else value
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise EditError(f"{where}: expected a position in the data set, counted from 0, got {value!r}.")
        positions.append(number)
    return positions


def wanted_case_ids(given: Sequence[str | int] | str) -> list[str]:
    """The ids that ``data.case_ids`` asks for.

    Args:
        given: The ids, or a file that lists them.

    Raises:
        EditError: For an entry that is no id.
    """
    case_ids = []
    for value, where in _listed(given, "data.case_ids"):
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise EditError(f"{where}: expected the `case_id` of a record, got {value!r}.")
        case_ids.append(str(value))
    return case_ids


def _listed(given: Sequence[Any] | str, setting: str) -> list[tuple[Any, str]]:
    entries = read_list(given, setting) if isinstance(given, str) else [(value, f"`{setting}`") for value in given]
    if not entries:
        raise EditError(f"`{setting}` names no record. Leave it out to take all.")
    return entries


def at_positions(entries: Iterable[Entry], wanted: Sequence[int]) -> Iterator[Entry]:
    """The entries at some positions, in the order asked for.

    Args:
        entries: All records; they are read as far as is needed.
        wanted: Positions, counted from 0.

    Raises:
        EditError: For positions that the data set does not have.
    """
    missing, records, count = set(wanted), {}, 0
    for position, entry in enumerate(entries):
        count = position + 1
        if position in missing:
            records[position] = entry
            missing.remove(position)
            if not missing:
                break
    if missing and not count:
        raise EditError("`data.indices`: the data set has no records.")
    if missing:
        raise EditError(f"`data.indices`: {listed(sorted(missing))}: the data set has the records 0 to {count - 1}.")
    return (records[position] for position in wanted)


def with_case_ids(entries: Iterable[Entry], wanted: Sequence[str]) -> Iterator[Entry]:
    """The entries with some ids, in the order asked for.

    Args:
        entries: All records.
        wanted: Ids; all records of an id are taken.

    Raises:
        EditError: For ids that no record has.
    """
    records: dict[str, list[Entry]] = {case_id: [] for case_id in wanted}
    first: list[str] = []
    some = False
    for entry in entries:
        first += [entry.case_id] * (len(first) < 3)
        some = some or bool(entry.case_id)
        if entry.case_id in records:
            records[entry.case_id].append(entry)
    if missing := [case_id for case_id, own in records.items() if not own]:
        example = f"the data set has ids such as {', '.join(first)}" if some else "the records have no `case_id`"
        raise EditError(f"`data.case_ids`: there is no record {listed(missing)}; {example}.")
    return (entry for case_id in wanted for entry in records[case_id])


def without_conflicts(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Leaves out what contradicts an earlier request: the same sentence (see `sentence_of`) with another target.

    Args:
        entries: Records.
    """
    answers: dict[Hashable, str] = {}
    targets: dict[str, str] = {}
    for entry in entries:
        if isinstance(entry, EditRequest):
            # Most targets are those of many edits: one text is kept of each.
            target = targets.setdefault(entry.target_new, entry.target_new)
            first = answers.setdefault(sentence_of(entry), target)
            if first != target:
                entry = LeftOut("they contradict an earlier record (`conflicts: keep_first`)", entry.name)
        yield entry


def one_of_each_subject(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Leaves out all but the first request of each subject.

    Args:
        entries: Records.
    """
    subjects = set()
    for entry in entries:
        if isinstance(entry, EditRequest):
            if entry.subject and entry.subject in subjects:
                entry = LeftOut("their subject has an edit already (`unique_subjects`)", entry.name)
            else:
                subjects.add(entry.subject)
        yield entry


def requests_only(entries: Iterable[Entry], leave_out: Callable[[LeftOut], None]) -> Iterator[EditRequest]:
    """The requests among the entries.

    Args:
        entries: Records.
        leave_out: Is told of each of the others.
    """
    for entry in entries:
        if isinstance(entry, LeftOut):
            leave_out(entry)
        else:
            yield entry
