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


@dataclass(frozen=True)
class Pairs:
    """What one update is to write at each of its places, all found on the same weights.

    Args:
        keys: For each place K ``(d_in, n)`` in float64.
        residuals: For each place R ``(d_out, n)`` in float64.
        owners: ``n`` positions: to which of the edits each column belongs.
        statistics: What was seen of all pairs up to these, which later ones are compared with; see `Source.find`.
    """

    keys: dict[int, Tensor]
    residuals: dict[int, Tensor]
    owners: tuple[int, ...]
    statistics: dict[str, Statistics]


class Source(Checked, ABC):
    """Finds the pairs of key and residual of an update when it is written, in place of a search for values before.

    A source is a frozen dataclass of settings. What it accumulates from update to update is given to it and returned,
    so that a run can be stopped, resumed and undone.

    Attributes:
        needs_subject: Whether it must know where the subject of an edit stands.
        maps: Patterns of the linear maps of a block that are edited, see `with_maps`; none for the down-projection.
        warmup: How many facts that are not edited it is to see before the first update.
    """

    needs_subject: ClassVar[bool] = True
    maps: list[str]
    warmup: int

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

    @abstractmethod
    def find(
        self,
        decoder: Decoder,
        tokenizer: Any,
        requests: Sequence[EditRequest],
        templates: ContextTemplates,
        places: Sequence[int],
        statistics: Mapping[str, Statistics],
        report: Report = silent,
    ) -> Pairs:
        """The pairs of the edits of one update on the model as it is now.

        Args:
            decoder: The model.
            tokenizer: Its fast tokenizer.
            requests: The edits.
            templates: Their contexts.
            places: The edited places.
            statistics: What earlier pairs left, by the shape of their weights; nothing at first.
            report: Called with the number of edits done.

        Raises:
            EditError: If pairs are not finite.
        """
