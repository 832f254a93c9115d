"""CounterFact in the original format (Meng et al., 2022)."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets

from datamodules.base import EditDataModule
from datamodules.preservation import PreservationText
from lightning_edit.errors import EditError
from lightning_edit.requests import EditRequest


class CounterFact(EditDataModule):
    """CounterFact records: ``requested_rewrite`` with subject, prompt and targets, and four lists of prompts.

    Args:
        path: A local JSON file (a list of records), or the name of a hub data set of the same columns.
        split: Which split of a hub data set.
        limit: See `EditDataModule`.
        batch_size: See `EditDataModule`.
        eval_batch_size: See `EditDataModule`.
        preservation: See `EditDataModule`.
    """

    def __init__(
        self,
        path: str,
        split: str = "train",
        limit: int | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 32,
        preservation: PreservationText | None = None,
    ) -> None:
        super().__init__(limit, batch_size, eval_batch_size, preservation)
        self.path, self.split = path, split

    def load_requests(self) -> Iterator[EditRequest]:
        """The records as edit requests.

        Raises:
            EditError: If the source is not there or not JSON, or a record lacks what is needed.
        """
        for number, record in enumerate(self._records(), start=1):
            yield _request(record, f"{self.path}, record {number}")

    def _records(self) -> Iterable[Any]:
        file = Path(self.path).expanduser()
        if file.is_file():
            return _read_json(file)
        if file.suffix or self.path.startswith((".", "/", "~")):
            raise EditError(f"`data.path`: there is no file {self.path}.")
        try:
            return datasets.load_dataset(self.path, split=self.split)
        except (OSError, ValueError) as error:
            raise EditError(
                f"`data.path`: {self.path} is no file and could not be opened on the hub: {error}"
            ) from error


def _read_json(file: Path) -> list[Any]:
    try:
        records = json.loads(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise EditError(f"{file} is not UTF-8 text ({error}); save it as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise EditError(f"{file}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}).") from error
    if not isinstance(records, list):
        raise EditError(f"{file}: expected a list of CounterFact records, got {type(records).__name__}.")
    return records


def _request(record: Any, where: str) -> EditRequest:
    try:
        rewrite = record["requested_rewrite"]
        target_true = rewrite.get("target_true")
        return EditRequest(
            subject=rewrite["subject"],
            prompt=rewrite["prompt"],
            target_new=rewrite["target_new"]["str"],
            target_true=None if target_true is None else target_true["str"],
            case_id=str(record.get("case_id", "")),
            paraphrase_prompts=record.get("paraphrase_prompts", ()),
            neighborhood_prompts=record.get("neighborhood_prompts", ()),
            attribute_prompts=record.get("attribute_prompts", ()),
            generation_prompts=record.get("generation_prompts", ()),
        )
    except KeyError as error:
        raise EditError(f"{where}: the field {error} is missing.") from error
    except (TypeError, AttributeError) as error:
        raise EditError(
            f"{where}: expected CounterFact's format, {{'requested_rewrite': {{'subject', 'prompt', 'target_new': "
            f"{{'str'}}, ...}}}}, got {str(record)[:80]!r}."
        ) from error
    except EditError as error:
        raise EditError(f"{where}: {error}") from error
