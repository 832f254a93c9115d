"""What all downstream tasks have in common: where the data come from, and two steps, preparing and measuring."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightning_edit.downstream.rows import Table, read_hub, read_jsonl
from lightning_edit.errors import EditError
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report
from lightning_edit.settings import Seed

TooLong = Literal["refuse", "cut"]


@dataclass(frozen=True)
class Source:
    """Where the rows of a task come from: a hub data set or a local file, one of the two.

    Args:
        dataset: Name of a hub data set.
        subset: Its configuration, where it has several.
        split: Its split.
        shuffle: Seed of the order of its rows, for data sets that are sorted; None keeps the order.
        file: A JSONL file, one row a line; a relative path counts from the folder of the task's YAML file.
    """

    dataset: str | None = None
    subset: str | None = None
    split: str = "validation"
    shuffle: Seed | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        if (self.dataset is None) == (self.file is None):
            raise EditError("`data` needs either `dataset`, a name on the hub, or `file`, a JSONL file.")

    def read(self) -> Table:
        """The rows.

        Raises:
            EditError: If they are not there or not readable.
        """
        if self.file is not None:
            return read_jsonl(Path(self.file))
        assert self.dataset is not None
        return read_hub(self.dataset, self.subset, self.split, self.shuffle)


@dataclass(frozen=True)
class Fitting:
    """Whom the prompts are for.

    Args:
        tokenizer: The model's fast tokenizer.
        context: Most tokens of a text, None where the model has no limit.
        too_long: What happens to a question that does not fit the context even without shots: ``refuse`` is an error,
            ``cut`` leaves out its beginning.
    """

    tokenizer: Any
    context: int | None
    too_long: TooLong = "refuse"


@dataclass(frozen=True)
class Measured:
    """What one measurement of a task found.

    Args:
        figures: Under their names, e.g. ``downstream/sst/generated_accuracy``.
        records: For each test row what the model answered.
    """

    figures: dict[str, float]
    records: list[dict[str, Any]] = field(default_factory=list)


class Prepared(ABC):
    """A task with its data read and its prompts built, to be measured as often as needed."""

    @property
    def shots(self) -> list[int]:
        """How many shots the prompt of each row holds; empty where there are none to hold."""
        return []

    @abstractmethod
    def measure(self, decoder: Decoder, tokenizer: Any, report: Report) -> Measured:
        """Measures a model; it is in the same state afterwards.

        Args:
            decoder: The model as it is now.
            tokenizer: The tokenizer that the prompts were built for.
            report: Called with the number of rows done.
        """


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A downstream task as its YAML file describes it.

    Args:
        name: What its figures are called after.
        data: Where its rows come from.
    """

    name: str
    data: Source

    @abstractmethod
    def prepare(self, table: Table, shots: int, tests: int, fitting: Fitting) -> Prepared:
        """Builds and checks all that a measurement needs.

        Args:
            table: The rows of the task.
            shots: Solved examples before each question.
            tests: How many rows to measure.
            fitting: The tokenizer and the context that the prompts must fit.

        Raises:
            EditError: If there are too few rows, a column is missing, or a question does not fit.
        """
