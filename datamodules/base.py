"""What all data modules share: the choice of requests, checked once, in micro-batches."""

import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Annotated, ClassVar, Literal

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, DistributedSampler

from lightning_edit.asking.chat import ChatSettings
from lightning_edit.asking.own_answers import answering
from lightning_edit.asking.questions import as_question
from lightning_edit.collateral import Sources
from lightning_edit.datamodules import selection
from lightning_edit.datamodules.fields import with_escapes
from lightning_edit.datamodules.preservation import PreservationText
from lightning_edit.datamodules.selection import LeftOut
from lightning_edit.errors import EditError
from lightning_edit.messages import counted, listed
from lightning_edit.repetitions import repetitions
from lightning_edit.requests import EditRequest, replaced_by
from lightning_edit.settings import AMOUNT, NO_EFFECT, SOURCE, Checked, Count, CountOrZero, Seed
from lightning_edit.storage.checkpoints.known_classes import SafelyLoaded
from lightning_edit.stored_requests import IN_MEMORY, kept, some_of, without

logger = logging.getLogger(__name__)

Conflicts = Literal["refuse", "keep_first", "replace"]
EXAMPLES = 3


def _as_list(requests: list[EditRequest]) -> list[EditRequest]:
    return requests


class EditDataModule(Checked, SafelyLoaded, LightningDataModule, ABC):
    """Edits to make and to measure; a data set is one subclass with one method.

    The edits of a run are chosen in this order: `case_ids` or `indices`, `conflicts`, `unique_subjects`, `shuffle`,
    `limit`. Records are read in the order of the data set and only as far as is needed; where every record is one
    edit, those that are chosen by position, or as the first of a random order, are looked at alone. Of very many edits
    those that nobody looks at are in a temporary file (`kept`), not in memory.

    Args:
        limit: At most this many edits; None for all.
        batch_size: Edits whose values are optimized at once; changes memory and speed, not what is written.
        eval_batch_size: Records that are measured at once; the more the faster, in bounded memory.
        preservation: Ordinary text for the second moments; None lets the model write its own.
        shuffle: Puts the edits in a random order, before `limit`.
        seed: Of that order.
        unique_subjects: Leaves out all but the first record of each subject.
        conflicts: What to do with records that give the same subject and prompt different targets: ``refuse`` them, if
            they are among the edits of the run, ``keep_first``, the first of the data set, and leave out the others, or
            make them all and let each ``replace`` the one before it; measured is the last. Spaces around subject and
            prompt do not count, case does.
        case_ids: Only the records of these ids, in this order: a list, or a file (a JSON list, or one id a line).
        separator: What stands between prompts and answers, for all records that have no ``separator`` of their own;
            None for what is usual, see `EditRequest`.
        indices: Only the records at these positions, in this order, counted from 0: a list, or a file like that.

    Raises:
        EditError: If a number is out of its range, both `case_ids` and `indices` are given, or `unique_subjects` leaves
            nothing to ``replace``.
    """

    section = "data"
    # What to set where edits contradict each other.
    way_out: ClassVar[str] = (
        "`data.conflicts: keep_first` keeps the first of them, `replace` makes both, the later one replaces the "
        "earlier."
    )

    @classmethod
    def named_kinds(cls) -> tuple[type, ...]:
        """The classes whose subclasses a checkpoint may name."""
        return EditDataModule, PreservationText

    def __init__(
        self,
        limit: Annotated[Count | None, AMOUNT] = None,
        batch_size: Count = 64,
        eval_batch_size: Annotated[Count, NO_EFFECT] = 256,
        preservation: Annotated[PreservationText | None, SOURCE] = None,
        shuffle: bool = False,
        seed: Seed = 0,
        unique_subjects: bool = False,
        conflicts: Conflicts = "refuse",
        case_ids: list[int | str] | str | None = None,
        indices: list[CountOrZero] | str | None = None,
        separator: Annotated[str | None, SOURCE] = None,
    ) -> None:
        super().__init__()
        if case_ids is not None and indices is not None:
            raise EditError("`data.case_ids` and `data.indices` both choose records. Give one of them.")
        if conflicts == "replace" and unique_subjects:
            raise EditError(
                "`data.unique_subjects` keeps the first record of a subject, `data.conflicts: replace` lets a later "
                "one replace it. Set `unique_subjects` to false, or `conflicts` to keep_first."
            )
        self.save_hyperparameters(logger=False)  # its names may be those of the module
        self.limit, self.batch_size, self.eval_batch_size = limit, batch_size, eval_batch_size
        self.preservation = preservation
        self.shuffle, self.seed, self.unique_subjects, self.conflicts = shuffle, seed, unique_subjects, conflicts
        self.case_ids, self.indices, self.separator = case_ids, indices, separator
        self.left_out: dict[str, list[str]] = {}
        self._requests: Sequence[EditRequest] | None = None
        self._measured: tuple[Sequence[EditRequest], Sequence[EditRequest]] | None = None
        self._asking: ChatSettings | None = None

    @abstractmethod
    def load_requests(self) -> Iterator[EditRequest | LeftOut]:
        """The records of the data set in its order: an edit, or why there is none."""

    def entries_at(self, wanted: Sequence[int]) -> Iterator[EditRequest | LeftOut]:
        """Some records, in the order asked for; a subclass may be able to read these alone.

        Args:
            wanted: Their positions, counted from 0.

        Raises:
            EditError: See `at_positions`.
        """
        return selection.at_positions(self.load_requests(), wanted)

    def count_edits(self) -> int | None:
        """How many edits there are, where a subclass knows it without making them; else None."""
        return None

    def check(self, requests: Sequence[EditRequest]) -> None:
        """A last look at the edits of a run; a subclass may refuse them or warn.

        Args:
            requests: All edits of the run.
        """

    @property
    def requests(self) -> Sequence[EditRequest]:
        """The edits of the run, checked. Records that were left out are in `left_out`, by reason, with a warning.

        Raises:
            EditError: If there is none, one is bad, or two contradict each other.
        """
        if self._requests is None:
            self.left_out.clear()
            requests = self._chosen()
            for reason, names in self.left_out.items():
                count = counted(len(names), "record is", "records are")
                logger.warning("%s left out: %s (%s).", count, reason, listed(names, EXAMPLES))
            if not requests:
                where = f" in {self.path}" if hasattr(self, "path") else ""
                raise EditError(f"{type(self).__name__}: there are no edits{where}.")
            requests = self._distinct(requests)
            self.check(requests)
            self._requests = self._asked(requests)
        return self._requests

    def ask_questions(self, settings: ChatSettings | None) -> None:
        """Puts the prompts of all edits as a chat model is asked them, see `as_question`.

        Args:
            settings: How it is asked; None leaves the prompts as they are.
        """
        if settings != self._asking:
            self._asking = settings
            if self._requests is not None:
                self._requests = self._asked(kept(request.original or request for request in self._requests))

    def learn(self, answers: Sequence[str | None]) -> None:
        """Gives edits another answer to learn in a chat, see `answering`.

        Args:
            answers: One for each edit, in their order; None leaves it.
        """
        self._requests = kept(answering(self.requests, answers))

    def _asked(self, requests: Sequence[EditRequest]) -> Sequence[EditRequest]:
        if (asking := self._asking) is None:
            return requests
        return kept(as_question(request, asking.complete, asking.in_sentences) for request in requests)

    def _chosen(self) -> Sequence[EditRequest]:
        if (drawn := self._drawn()) is not None:
            return list(self._requests_among(self.entries_at(drawn)))
        if self.indices is not None:
            entries: Iterable[EditRequest | LeftOut] = self.entries_at(selection.wanted_indices(self.indices))
        else:
            entries = self.load_requests()
        if self.case_ids is not None:
            entries = selection.with_case_ids(entries, selection.wanted_case_ids(self.case_ids))
        if self.conflicts == "keep_first":
            entries = self._first_of_conflicts(entries)
        if self.unique_subjects:
            entries = selection.one_of_each_subject(entries)
        requests = self._requests_among(entries)
        if not self.shuffle:
            return kept(self._limited(requests))
        everything = kept(requests)
        return some_of(everything, self._order(len(everything))[: self.limit])

    def _first_of_conflicts(self, entries: Iterable[EditRequest | LeftOut]) -> Iterator[EditRequest | LeftOut]:
        return selection.without_conflicts(entries)

    def _limited(self, requests: Iterable[EditRequest]) -> Iterator[EditRequest]:
        return islice(requests, self.limit)

    def _drawn(self) -> list[int] | None:
        """The positions of a random few, where they can be drawn before any record is looked at."""
        few = self.limit is not None and self.limit <= IN_MEMORY
        by_records = self.case_ids is not None or self.conflicts == "keep_first" or self.unique_subjects
        if not (self.shuffle and few) or self.indices is not None or by_records:
            return None
        count = self.count_edits()
        return None if count is None else self._order(count)[: self.limit]

    def _order(self, count: int) -> list[int]:
        order = list(range(count))
        random.Random(self.seed).shuffle(order)
        return order

    def _requests_among(self, entries: Iterable[EditRequest | LeftOut]) -> Iterator[EditRequest]:
        return map(self._separated, selection.requests_only(entries, self._leave_out))

    def _separated(self, request: EditRequest) -> EditRequest:
        if self.separator is None or request.separator is not None:
            return request
        return replace(request, separator=with_escapes(self.separator))

    def _leave_out(self, record: LeftOut) -> None:
        self.left_out.setdefault(record.reason, []).append(record.name)

    def _distinct(self, chosen: Sequence[EditRequest]) -> Sequence[EditRequest]:
        try:
            requests = without(chosen, *repetitions(chosen, self.conflicts == "replace"))
        except EditError as error:
            raise EditError(f"{error} {self.way_out}") from error
        if replaced := replaced_by(requests):
            pairs = [f"{requests[old].name} by {requests[new].name}" for old, new in replaced.items()]
            logger.warning(
                "%s replaced by later ones of the same subject and prompt, `conflicts: replace` (%s).",
                counted(len(replaced), "edit is", "edits are"),
                listed(pairs, EXAMPLES),
            )
        return requests

    @property
    def measured(self) -> Sequence[EditRequest]:
        """The edits that should hold at the end of the run: all but those that a later one replaces."""
        requests = self.requests
        if self._measured is None or self._measured[0] is not requests:
            self._measured = requests, without(requests, replaced_by(requests))
        return self._measured[1]

    def preservation_texts(self) -> Iterable[str] | None:
        """Ordinary text, or None where there is none."""
        return None if self.preservation is None else self.preservation.texts()

    def sources(self) -> Sources:
        """What a model may be asked beside the edits, to see what else they changed; the shipped prompts and facts."""
        return Sources.shipped()

    def setup(self, stage: str) -> None:
        """Reads and checks all edits, before anything expensive."""
        _ = self.requests
        if self.preservation is not None:
            self.preservation.check()

    def train_dataloader(self) -> DataLoader[EditRequest]:
        """Micro-batches of edits in their order."""
        return _loader(self.requests, self.batch_size)

    def test_dataloader(self) -> DataLoader[EditRequest]:
        """The same edits as records to measure, without those that a later one replaces."""
        return _loader(self.measured, self.eval_batch_size)


def _loader(requests: Sequence[EditRequest], batch_size: int) -> DataLoader[EditRequest]:
    # Every process goes through all edits and shares the work on them. A trainer replaces any other sampler by one that
    # deals the edits out to the processes, some of them twice.
    sampler: DistributedSampler[EditRequest] = DistributedSampler(requests, num_replicas=1, rank=0, shuffle=False)  # type: ignore[arg-type]
    return DataLoader(requests, batch_size, sampler=sampler, collate_fn=_as_list)  # type: ignore[arg-type]
