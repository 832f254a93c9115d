"""The history of a run: every update in a file of its own, so that each can be looked at, left out and put back."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.requests import EditRequest
from lightning_edit.updates.distance import first_order_distance
from lightning_edit.updates.files.update_file import StoredUpdate, read_update, write_update
from lightning_edit.updates.files.update_form import kept_of
from lightning_edit.updates.files.update_list import REMOVED, UpdateList
from lightning_edit.updates.files.update_record import DamagedUpdateError, EditIndex, columns_of
from lightning_edit.updates.layer_update import LayerUpdate
from lightning_edit.updates.sums import add_factors

logger = logging.getLogger(__name__)

START = "start.safetensors"
Unwritten = dict[str, Any]


class History(UpdateList):
    """The updates of one run with their tensors: written, read and added up.

    Several objects, also in several processes, may read one folder; only one writes at a time.

    Args:
        folder: Where the files are; it is made with the first of them. ``updates`` in the run's folder, as a rule.
        until: `find` looks no further than this update; None looks at all.
    """

    def __init__(self, folder: str | Path, until: int | None = None) -> None:
        super().__init__(folder, until)
        self._unwritten: dict[int, Unwritten] = {}

    # -- writing -------------------------------------------------------------------------------------------------------

    def write(
        self,
        number: int,
        updates: Mapping[int, LayerUpdate],
        keys: Mapping[int, Tensor],
        requests: Sequence[EditRequest],
        figures: Mapping[str, float],
        info: Mapping[str, Any] | None = None,
        after: Mapping[int, str] | None = None,
        owners: Sequence[int] | None = None,
    ) -> Path:
        """Writes the next update, atomically.

        Args:
            number: Its number, one more than the last.
            updates: For each layer what was added to its weight, as it was added.
            keys: For each layer K ``(d_in, n)``.
            requests: The n edits, in the order of the columns of K.
            figures: Norms, errors and condition numbers, ``layer_L/NAME``.
            info: What made it (base model, solver ...), to be written as JSON.
            after: For each layer the fingerprint of the weight with this update in it, by which whoever removes later
                updates can tell that the weights are those again.
            owners: To which of the edits each column of K belongs; None where each edit has one.

        Returns:
            The file.

        Raises:
            EditError: If it is not the next one, or the keys are not those of the edits.
            OSError: If there is no room or no permission; nothing that was written before is lost.
        """
        self._check_new(number, updates, keys, len(requests if owners is None else owners))
        path = self.path(number)
        write_update(path, number, updates, keys, requests, figures, info or {}, after or {}, owners)
        return path

    def _check_new(
        self, number: int, updates: Mapping[int, LayerUpdate], keys: Mapping[int, Tensor], count: int
    ) -> None:
        if number < 1 or self.path(number).exists() or (number > 1 and not self.path(number - 1).exists()):
            raise EditError(
                f"Update {number} cannot be written to {self.folder}, which holds {len(self._files())} updates. A run "
                "that starts there must first forget the updates after its own (`History.forget_after`)."
            )
        wrong = [layer for layer in updates if layer not in keys or keys[layer].shape[1] != count]
        if wrong:
            raise EditError(f"Update {number}: layer {wrong[0]} needs keys (d_in, {count}), a column for each key.")

    def remember(
        self,
        number: int,
        keys: Mapping[int, Tensor],
        requests: Sequence[EditRequest],
        owners: Sequence[int] | None = None,
    ) -> None:
        """Keeps in memory what `find` and `keys` must know of an update that could not be written.

        Args:
            number: Its number.
            keys: For each layer K ``(d_in, n)``; empty where no later edit asks for it.
            requests: The n edits.
            owners: See `write`.
        """
        edits = [kept_of(request) for request in requests]
        kept: Unwritten = {"edits": edits, "keys": {layer: matrix.cpu() for layer, matrix in keys.items()}}
        self._unwritten[number] = kept if owners is None else {**kept, "owners": list(owners)}

    @property
    def unwritten(self) -> dict[int, Unwritten]:
        """What was remembered, in plain types and tensors, for a checkpoint; whoever goes on from it sets it again."""
        return dict(self._unwritten)

    @unwritten.setter
    def unwritten(self, kept: Mapping[int, Unwritten]) -> None:
        self._unwritten, self._index = dict(kept), EditIndex()

    def write_start(self, updates: Mapping[int, LayerUpdate], info: Mapping[str, Any] | None = None) -> None:
        """Writes what the weights held before the first update, for a run on top of an earlier one.

        It is in every sum and cannot be left out.

        Args:
            updates: For each layer all that was added before this run.
            info: Where it comes from.

        Raises:
            EditError: If there are updates already.
        """
        if self._files():
            raise EditError(f"{self.folder} holds updates already, so the run there has begun. Use another folder.")
        write_update(self.folder / START, 0, updates, {}, [], {}, info or {}, {})

    def forget_after(self, number: int) -> None:
        """Deletes the updates after one: a run that goes on from there makes them again.

        Such a run holds all updates up to that one, so what was removed is in again.

        Args:
            number: The last update that stays; 0 deletes all, and what a run before this one left (`write_start`).
        """
        if removed := self.removed():
            logger.warning(
                "Updates %s had been removed from the run in %s; the resumed run contains them again.",
                ", ".join(map(str, sorted(removed))),
                self.folder.parent,
            )
        last = number
        while self.path(last + 1).exists():
            last += 1
        # The last one first: a crash between two leaves no gap.
        for later in range(last, number, -1):
            self.path(later).unlink()
        if number == 0:
            (self.folder / START).unlink(missing_ok=True)
        (self.folder / REMOVED).unlink(missing_ok=True)
        self.unwritten = {kept: edits for kept, edits in self._unwritten.items() if kept <= number}

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(self, number: int) -> StoredUpdate:
        """One update with its tensors; see `record`, which reads the same file without them.

        Args:
            number: Which.
        """
        return read_update(self._existing(number), number)

    def keys(self, number: int) -> dict[int, Tensor]:
        """For each layer the keys ``(d_in, n)`` of an update, also of one that could not be written; see `record`.

        Args:
            number: Which.
        """
        kept = self._unwritten.get(number)
        return self.read(number).keys if kept is None else kept["keys"]

    def columns(self, number: int, edit: int) -> list[int]:
        """Which columns of an update's keys belong to one of its edits; see `keys`.

        Args:
            number: The update.
            edit: The position of the edit in it.
        """
        kept = self._unwritten.get(number)
        return columns_of(self.record(number).owners if kept is None else kept.get("owners"), [edit])

    def _edits(self, number: int) -> Sequence[Mapping[str, str]] | None:
        if number in self._unwritten:
            return self._unwritten[number]["edits"]
        edits = super()._edits(number)
        return [] if edits is None and number < max(self._unwritten, default=0) else edits

    # -- adding up -----------------------------------------------------------------------------------------------------

    def sum(self, without: Collection[int] = ()) -> dict[int, LayerUpdate]:
        """All updates but some, added up in their order, and on what the run began with, as the run added them up.

        So the sum without the last updates gives, bit for bit, the weights that the run had before them.

        Args:
            without: Numbers to leave out; their files are not read.

        Returns:
            For each layer its update; a layer that nothing else edits is not there.

        Raises:
            EditError: If a number is not there, a file is damaged, or the updates are of different runs.
        """
        self._check_known(without)
        total = self.start()
        for stored in self._read_all(set(self.numbers()) - set(without)):
            for layer, update in stored.updates.items():
                before = total.get(layer)
                same = before is None or (before.module, before.base) == (update.module, update.base)
                if not same or (before is not None and before.factors.shape != update.factors.shape):
                    raise EditError(
                        f"Update {stored.record.number} edits {update.module} of another model than the updates before "
                        f"it. {self.folder} holds updates of several runs; give each run a folder of its own."
                    )
                factors = update.factors if before is None else add_factors(before.factors, update.factors)
                total[layer] = replace(update, factors=factors)
        return dict(sorted(total.items()))

    def start(self) -> dict[int, LayerUpdate]:
        """For each layer what its weight held before the first update, see `write_start`; empty where that is not kept.

        Raises:
            DamagedUpdateError: If the file is not what was written.
        """
        return dict(read_update(self.folder / START, 0).updates) if self.began_with else {}

    def start_if_known(self) -> tuple[dict[int, LayerUpdate], str]:
        """What `start` gives, and where that is nothing, why: for those who can do without."""
        try:
            return self.start(), f"{self.folder / START} is not there."
        except DamagedUpdateError as error:
            return {}, str(error)

    @property
    def began_with(self) -> bool:
        """Whether the run was built on an earlier one, whose edits are in every sum (`write_start`)."""
        return (self.folder / START).exists()

    def distance(self, without: Collection[int]) -> dict[int, float | str]:
        """How far `sum` is from a run that never made some updates; see `first_order_distance`.

        Args:
            without: The numbers that are left out.
        """
        self._check_known(without)
        return first_order_distance(self._read_all(self.numbers()), without)

    def _read_all(self, numbers: Collection[int]) -> Iterator[StoredUpdate]:
        return (read_update(self.path(number), number) for number in sorted(numbers))
