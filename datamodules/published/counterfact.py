"""CounterFact in the original format (Meng et al., 2022), and Multi-CounterFact, which has the same."""

import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from lightning_edit.datamodules.fields import case_id
from lightning_edit.datamodules.published.snippets import Snippets
from lightning_edit.datamodules.record_module import RecordDataModule
from lightning_edit.datamodules.subjects import refuse_hole
from lightning_edit.errors import EditError
from lightning_edit.messages import counted, quoted
from lightning_edit.requests import PROMPT_LISTS, EditRequest
from lightning_edit.settings import SOURCE

logger = logging.getLogger(__name__)

LISTS = (*PROMPT_LISTS, "paraphrase_questions")


class CounterFact(RecordDataModule):
    """CounterFact records: ``requested_rewrite`` with subject, prompt and targets, and four lists of prompts.

    Some records of CounterFact contradict each other: the same subject and prompt with another target. One by one they
    can be edited, in one run they cannot: see `conflicts`.

    Args:
        path: A local file, a local folder, or the name of a hub data set (see `RecordDataModule`).
        snippets: The published ``attribute_snippets.json``, which gives every record texts about its new target
            (``reference_texts``) and about its subject (``essence_texts``); None for none.
        kwargs: See `RecordDataModule` and `EditDataModule`.
    """

    required = ("requested_rewrite",)
    one_each = True

    def __init__(
        self, path: Annotated[str, SOURCE], snippets: Annotated[str | None, SOURCE] = None, **kwargs: Any
    ) -> None:
        super().__init__(path, **kwargs)
        self.snippets = snippets
        self._snippets: Snippets | None = None

    def begin(self) -> None:
        """Reads the snippets; see `RecordDataModule.begin`.

        Raises:
            EditError: If they are not there or cannot be read.
        """
        super().begin()
        self._snippets = None if self.snippets is None else Snippets(self.snippets)

    def request(self, record: Mapping[str, Any], position: int) -> EditRequest:
        """One record as an edit; see `RecordDataModule.request`."""
        try:
            rewrite = record["requested_rewrite"]
            target_true = rewrite.get("target_true")
            if not rewrite["subject"]:
                refuse_hole(rewrite["prompt"])
            return EditRequest(
                subject=rewrite["subject"],
                prompt=rewrite["prompt"],
                target_new=rewrite["target_new"]["str"],
                target_true=None if target_true is None else target_true["str"],
                case_id=case_id(record),
                reference_texts=() if self._snippets is None else self._snippets.reference_texts(rewrite),
                essence_texts=() if self._snippets is None else self._snippets.essence_texts(rewrite),
                question=self.question_of(rewrite.get("question"), rewrite["subject"]),
                **{name: record[name] for name in LISTS if record.get(name) is not None},
            )
        except KeyError as error:
            raise EditError(f"the field {error} is missing.") from error
        except (TypeError, AttributeError) as error:
            raise EditError(
                "expected CounterFact's format, {'requested_rewrite': {'subject', 'prompt', 'target_new': {'str'}, "
                f"...}}}}, got {quoted(record)}."
            ) from error

    def check(self, requests: Sequence[EditRequest]) -> None:
        """Refuses snippets of another data set.

        Args:
            requests: All edits of the run.

        Raises:
            EditError: If there are snippets, but none for any edit.
        """
        super().check(requests)
        if self.snippets is None:
            return
        without = sum(not request.reference_texts for request in requests)
        if without == len(requests):
            raise EditError(
                f"`data.snippets`: {self.snippets} has no text for any of {counted(without, 'edit')}. Relations and "
                "the `id` of targets must be those of the data set."
            )
        if without:
            count = counted(len(requests), "edit is", "edits are")
            logger.warning("%d of %s without reference texts in %s.", without, count, self.snippets)
