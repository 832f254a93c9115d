"""What all data modules share: requests, checked once, in micro-batches."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from datamodules.preservation import PreservationText
from lightning_edit.errors import EditError
from lightning_edit.requests import EditRequest, distinct


def _as_list(requests: list[EditRequest]) -> list[EditRequest]:
    return requests


class EditDataModule(LightningDataModule, ABC):
    """Edits to make and to measure; a data set is one subclass with one method.

    Args:
        limit: At most this many edits, the first of the data set; None for all.
        batch_size: Edits whose values are optimized at once; changes memory and speed, not what is written.
        eval_batch_size: Records that are measured at once.
        preservation: Ordinary text for the second moments; None lets the model write its own.
    """

    def __init__(
        self,
        limit: int | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 32,
        preservation: PreservationText | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("limit", limit), ("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value is not None and value < 1:
                raise EditError(f"`data.{name}` must be a positive number, got {value}.")
        self.save_hyperparameters(logger=False)  # its names may be those of the module
        self.limit, self.batch_size, self.eval_batch_size = limit, batch_size, eval_batch_size
        self.preservation = preservation
        self._requests: list[EditRequest] | None = None

    @abstractmethod
    def load_requests(self) -> Iterator[EditRequest]:
        """The edits of the data set, in its order."""

    @property
    def requests(self) -> list[EditRequest]:
        """The edits of the run, checked.

        Raises:
            EditError: If there is none, one is bad, or two contradict each other.
        """
        if self._requests is None:
            found = []
            for request in self.load_requests():
                found.append(request)
                if len(found) == self.limit:
                    break
            if not found:
                raise EditError(f"{type(self).__name__} holds no edits.")
            self._requests = distinct(found)
        return self._requests

    def preservation_texts(self) -> Iterable[str] | None:
        """Ordinary text, or None where there is none."""
        return None if self.preservation is None else self.preservation.texts()

    def setup(self, stage: str) -> None:
        """Reads and checks all edits, before anything expensive."""
        _ = self.requests

    def train_dataloader(self) -> DataLoader[EditRequest]:
        """Micro-batches of edits in the order of the data set."""
        return self._loader(self.batch_size)

    def test_dataloader(self) -> DataLoader[EditRequest]:
        """The same edits as records to measure."""
        return self._loader(self.eval_batch_size)

    def _loader(self, batch_size: int) -> DataLoader[EditRequest]:
        requests: Sequence[EditRequest] = self.requests
        return DataLoader(requests, batch_size, collate_fn=_as_list)  # type: ignore[arg-type]
