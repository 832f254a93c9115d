"""Where the pairs of key and residual of an update come from, if not from a search for values."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from lightning_edit.gradients.statistics import Statistics
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report, silent
from lightning_edit.requests import EditRequest
from lightning_edit.settings import Checked
from lightning_edit.solvers import Ridge, Solver
from lightning_edit.values.settings import ValueSettings


@dataclass(frozen=True)
class AtPlace:
    """What one update is to write at one of its places, in float64.

    Args:
        keys: K ``(d_in, n)``.
        residual: R ``(d_out, n)``.
        text_keys: ``(d_in, m)``, see `EditProblem`; None for none.
    """

    keys: Tensor
    residual: Tensor
    text_keys: Tensor | None = None


class Pairs(ABC):
    """What one update is to write.

    Attributes:
        owners: ``n`` positions: to which of the edits each column belongs.
        statistics: What was seen of all pairs up to these, which later ones are compared with; see `Source.find`.
    """

    owners: tuple[int, ...]
    statistics: Mapping[str, Statistics]

    @abstractmethod
    def at(self, place: int) -> AtPlace:
        """The pairs of one place, asked for once, after what lies below it was written.

        Args:
            place: One of the edited places.
        """


@dataclass(frozen=True, repr=False)
class Asked:
    """The edits of one update, and where their pairs are to be found.

    Args:
        decoder: The model as it is now.
        tokenizer: Its fast tokenizer.
        requests: The n edits.
        templates: Their contexts.
        places: The edited places, ascending.
        values: How values are searched for, if they are.
    """

    decoder: Decoder
    tokenizer: Any
    requests: Sequence[EditRequest]
    templates: ContextTemplates
    places: Sequence[int]
    values: ValueSettings

    def shown_by(self, report: Report) -> Report:
        """A report of passes over texts that tells their progress in edits.

        Args:
            report: Where it goes.
        """
        edits = len(self.requests)

        def show(stage: str, done: float, total: float, **figures: float) -> None:
            report(stage, done * edits / max(total, 1), edits, **figures)

        return show


class Source(Checked, ABC):
    """Finds the pairs of key and residual of an update when it is written, in place of a search for values before.

    A source is a frozen dataclass of settings. What it accumulates from update to update is given to it and returned,
    so that a run can be stopped, resumed and undone.

    Attributes:
        needs_subject: Whether it must know where the subject of an edit stands.
        searches: Whether it searches for values at the highest edited layer, by the settings `values`, and the layers
            share what is to be written; if not, each place has residuals of its own.
        usual_solver: The solver where none is given.
        keys_of: What has a key of its own, for messages.
        maps: Patterns of the linear maps of a block that are edited, see `with_maps`; none for the down-projection.
        warmup: How many facts that are not edited it is to see before the first update.
        preserve_text: Whether it gives other keys of the edits' texts, which are preserved.
    """

    needs_subject: ClassVar[bool] = True
    searches: ClassVar[bool] = False
    usual_solver: ClassVar[type[Solver]] = Ridge
    keys_of: ClassVar[str] = "one for each token of an answer"
    maps: Sequence[str] = ()
    warmup: int = 0
    preserve_text: bool = False

    @property
    def idle(self) -> frozenset[str]:
        """The names of its settings that have no effect beside the others."""
        return frozenset()

    @abstractmethod
    def check(
        self, tokenizer: Any, requests: Sequence[EditRequest], templates: ContextTemplates, decoder: Decoder
    ) -> None:
        """Refuses edits of which no pairs can be found, before anything expensive.

        Args:
            tokenizer: A fast tokenizer.
            requests: The edits.
            templates: Their contexts.
            decoder: The model.

        Raises:
            EditError: Names the edit.
        """

    @abstractmethod
    def check_places(self, decoder: Decoder, places: Sequence[int], statistics: Mapping[str, Statistics]) -> None:
        """Refuses places of which no pairs can be found, and statistics that are not of them.

        Args:
            decoder: The model.
            places: The edited places.
            statistics: Those of an earlier run, or none.

        Raises:
            EditError: Names the place.
        """

    def check_solver(self, solver: Solver) -> None:
        """Warns where its pairs are not made for a solver.

        Args:
            solver: Which member of the family writes.
        """

    def check_first(self, tokenizer: Any, first: Sequence[EditRequest], templates: ContextTemplates) -> None:
        """Refuses a first update, before which nothing was seen, that tells it too little.

        Args:
            tokenizer: A fast tokenizer.
            first: The edits of that update.
            templates: Their contexts.

        Raises:
            EditError: If it accumulates statistics, and these would be of too few tokens.
        """

    def fingerprints(self) -> dict[str, str]:
        """Hashes, by name, of the files that it reads, which a run that goes on must find as they were."""
        return {}

    @abstractmethod
    def memory(self, asked: Asked) -> tuple[int, int]:
        """What the edits of one update take.

        Args:
            asked: The edits.

        Returns:
            How many keys they have, and about how many bytes it takes to find their pairs, beside the model.
        """

    @abstractmethod
    def find(self, asked: Asked, statistics: Mapping[str, Statistics], report: Report = silent) -> Pairs:
        """The pairs of the edits of one update on the model as it is now.

        Args:
            asked: The edits.
            statistics: What earlier pairs left, by the shape of their weights; nothing at first.
            report: Called with the number of edits done.

        Raises:
            EditError: If pairs are not finite.
        """
