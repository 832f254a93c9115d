"""EditEverything (Jiang et al., 2025): long answers of many kinds: texts, code, mathematics, poetry, chemistry."""

from collections.abc import Mapping
from typing import Any

from lightning_edit.datamodules.published.unke import UnKE
from lightning_edit.datamodules.selection import LeftOut
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.requests import EditRequest


class EditEverything(UnKE):
    """EditEverything's records: ``question``, ``answer``, and if they have them ``id`` and ``category``, see `UnKE`.

    Args:
        path: A local file, a local folder, or the name of a hub data set (see `RecordDataModule`).
        categories: Only records of these categories; None for all.
        kwargs: See `RecordDataModule` and `EditDataModule`.
    """

    def __init__(self, path: str, categories: list[str] | None = None, **kwargs: Any) -> None:
        super().__init__(path, **kwargs)
        if categories is not None and not categories:
            raise EditError("`data.categories` names no category. Leave it out to take all.")
        self.categories = categories

    def request(self, record: Mapping[str, Any], position: int) -> EditRequest | LeftOut:
        """One record as an edit; see `RecordDataModule.request`."""
        request = super().request(record, position)
        category = record.get("category")
        if not isinstance(category, str | None):
            raise EditError(f"`category` must be a text, got {quoted(category)}.")
        if self.categories is not None and category not in self.categories:
            return LeftOut("they are of another category (`categories`)", case_id=request.case_id)
        return request
