"""A data module whose records are read from a file, a folder or the hub."""

import logging
from abc import abstractmethod
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from lightning_edit.datamodules import selection
from lightning_edit.datamodules.base import EditDataModule
from lightning_edit.datamodules.records import read_records
from lightning_edit.datamodules.selection import LeftOut
from lightning_edit.datamodules.subjects import cut_out, stands_in
from lightning_edit.errors import EditError
from lightning_edit.messages import counted, listed, quoted
from lightning_edit.request_texts import ASKS_ITSELF, asks_itself
from lightning_edit.requests import EditRequest
from lightning_edit.settings import SOURCE

logger = logging.getLogger(__name__)

BadRecords = Literal["refuse", "leave_out"]
NOT_WANTED = LeftOut("they are not among those asked for")
# So many examples are shown of what was noted.
NOTED = 3


class RecordDataModule(EditDataModule):
    """Edits from records of one format: a subclass says how a record becomes an edit.

    Args:
        path: A local file (``.json``: a list of records, ``.jsonl``, ``.csv``, ``.parquet``), a local folder of data
            files, or the name of a hub data set with the same fields as columns.
        subset: The configuration of a hub data set that has several.
        split: Which split of a folder or hub data set.
        bad_records: What to do with a record that cannot be read: ``refuse`` the run, or ``leave_out`` the record, with
            a warning that counts them; ``records_left_out`` in ``metrics.json`` has the reason of each.
        kwargs: See `EditDataModule`.
    """

    required: ClassVar[tuple[str, ...]]
    """The fields without which a record is no edit."""

    typical: ClassVar[tuple[str, ...]] = ()
    """The fields by which the format is recognized, where they are not the required ones."""

    one_each: ClassVar[bool] = False
    """Whether every record is one edit, so that it can be chosen before it is looked at; not inherited."""

    def __init__(
        self,
        path: Annotated[str, SOURCE],
        subset: str | None = None,
        split: str = "train",
        bad_records: BadRecords = "refuse",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path, self.subset, self.split, self.bad_records = path, subset, split, bad_records
        self._notes: dict[tuple[str, str], tuple[int, list[str]]] = {}

    def requests_of(self, record: Mapping[str, Any], position: int) -> Sequence[EditRequest | LeftOut]:
        """One record as edits, where a record may hold several; see `request`.

        Args:
            record: The record, which has the `required` fields.
            position: Its position in the data set, counted from 0.

        Raises:
            EditError: If the record is bad; file and line are added to the message.
        """
        return (self.request(record, position),)

    @abstractmethod
    def request(self, record: Mapping[str, Any], position: int) -> EditRequest | LeftOut:
        """One record as an edit.

        Args:
            record: The record, which has the `required` fields.
            position: Its position in the data set, counted from 0.

        Returns:
            The edit, or why there is none.

        Raises:
            EditError: If the record is bad; file and line are added to the message.
        """

    def begin(self) -> None:
        """Called before the first record is read; a subclass also reads what all its records need.

        Raises:
            EditError: If that is not there or cannot be read.
        """
        self._notes.clear()

    def load_requests(self) -> Iterator[EditRequest | LeftOut]:
        """The records as edits.

        Raises:
            EditError: If the source is not there or cannot be read, or a record is bad; the message names the record.
        """
        yield from self._entries(None)

    def entries_at(self, wanted: Sequence[int]) -> Iterator[EditRequest | LeftOut]:
        """Some records as edits; the others are not looked at where every record is one edit.

        Args:
            wanted: Their positions among all, counted from 0.

        Raises:
            EditError: See `load_requests` and `at_positions`.
        """
        entries = self._entries(frozenset(wanted)) if self._is_one_each else self.load_requests()
        return selection.at_positions(entries, wanted)

    def count_edits(self) -> int | None:
        """How many edits there are, where records need not be looked at to know it; else None.

        Raises:
            EditError: If the source is not there or cannot be read.
        """
        if not self._is_one_each or self.bad_records != "refuse":
            return None
        return sum(1 for _ in read_records(self.path, self.subset, self.split, wanted=()))

    @property
    def _is_one_each(self) -> bool:
        # A subclass may well leave records out that the class above it does not.
        return bool(vars(type(self)).get("one_each", False))

    def _entries(self, wanted: Container[int] | None) -> Iterator[EditRequest | LeftOut]:
        self.begin()
        position = -1
        for position, (record, where) in enumerate(read_records(self.path, self.subset, self.split, wanted)):
            if wanted is not None and position not in wanted:
                yield NOT_WANTED
                continue
            try:
                self._check_format(record)
                entries = self.requests_of(record, position)
            except EditError as error:
                said = _placed(error, where, position)
                if self.bad_records == "refuse":
                    raise EditError(said) from error
                yield LeftOut("they are bad (`bad_records: leave_out`)", said)
                continue
            for number, entry in enumerate(entries, start=1):
                if isinstance(entry, EditRequest):
                    if asks_itself(entry):
                        self.note(*ASKS_ITSELF, entry.rewrite_prompt)
                    # Checked already, so it need not be made again.
                    object.__setattr__(entry, "where", where)
                    object.__setattr__(entry, "more", number < len(entries))
                yield replace(entry, name=where) if isinstance(entry, LeftOut) else entry
        if position < 0 and self._is_table:
            raise EditError(f"{self.path} has no row but its first, which is taken for the header; {self._if_record}")

    @property
    def _is_table(self) -> bool:
        return self.path.lower().endswith((".csv", ".tsv"))

    @property
    def _if_record(self) -> str:
        names = ",".join(self.typical or self.required) or "the names of the columns"
        return f"if it is a record, write {names} above it."

    def cut_out(self, prompt: str, subject: str) -> tuple[str, str] | None:
        """`subjects.cut_out`, which notes prompts that say in two ways where the subject is.

        Args:
            prompt: A complete prompt, or one with ``{}``.
            subject: The subject.
        """
        if "{}" in prompt and stands_in(prompt, subject):
            what = "both {} and the subject; {} is taken for the subject's place and not as it stands"
            self.note(f"prompt holds {what}", f"prompts hold {what}", prompt)
        return cut_out(prompt, subject)

    def question_of(self, question: Any, subject: str) -> str | None:
        """A record's question with ``{}`` in the place of its subject.

        Args:
            question: What the record brings; None where it brings none.
            subject: The subject.

        Raises:
            EditError: If the subject is not in it.
        """
        if question is None:
            return None
        place = self.cut_out(question, subject) if isinstance(question, str) else None
        if place is None:
            raise EditError(
                f"the question {quoted(question)} holds neither {{}} nor the subject {quoted(subject)}. Put {{}} where "
                "the subject goes."
            )
        return place[0]

    def note(self, one: str, many: str, example: str) -> None:
        """Keeps what is to be said of the records, once and with a count.

        Args:
            one: What is to be said, to follow "1 ".
            many: The same, to follow "2 ".
            example: The user's text that it is about.
        """
        count, examples = self._notes.get((one, many), (0, []))
        self._notes[one, many] = count + 1, [*examples, example] if count < NOTED else examples

    def check(self, requests: Sequence[EditRequest]) -> None:
        """Warns of what was noted.

        Args:
            requests: All edits of the run.
        """
        for (one, many), (count, examples) in self._notes.items():
            more = f" and {count - NOTED:,} more" if count > NOTED else ""
            logger.warning("%s (%s%s).", counted(count, one, many), listed(map(quoted, examples)), more)

    def _check_format(self, record: Any) -> None:
        if not isinstance(record, Mapping):
            fields = ", ".join(self.required)
            raise EditError(f"expected an object with the fields {fields}, got {quoted(record)}.")
        for field in self.required:
            if field not in record:
                hint = looks_like(record, type(self))
                if not hint and self._is_table and not set(self.required) & set(record):
                    hint = f" The first line is taken for the header; {self._if_record}"
                raise EditError(f"the field {field!r} is missing.{hint}")


def _placed(error: EditError, where: str, position: int) -> str:
    """What is wrong with a record, with its place, and its name only where that is not the place once more."""
    said = str(error)
    for number in (position, position + 1):
        # Many data sets call a record by its position.
        if where.endswith(f"record {position + 1}"):
            said = said.removeprefix(f"record {number}: ")
    return f"{where}: {said}"


def looks_like(record: Mapping[str, Any], reader: type[RecordDataModule]) -> str:
    """A hint which data module reads a record that another could not.

    Args:
        record: The record.
        reader: The data module that could not read it.

    Returns:
        A sentence to follow a message, empty if no other module fits.
    """
    other = reader_of(record, but=reader)
    return "" if other is None else f" The record looks like one for {other.__name__}: give --data {other.__name__}."


def reader_of(record: Mapping[str, Any], but: type[RecordDataModule] | None = None) -> type[RecordDataModule] | None:
    """The data module whose format a record has, None where it is that of none.

    Args:
        record: The record.
        but: One that is out of the question.
    """
    fitting = [
        other
        # In an order of their own: of several that fit as well the first is taken.
        for other in sorted(RecordDataModule.__subclasses__(), key=lambda kind: kind.__name__.lower())
        if other is not but and set(other.typical or other.required) <= set(record)
    ]
    return max(fitting, key=lambda other: len(other.typical or other.required), default=None)
