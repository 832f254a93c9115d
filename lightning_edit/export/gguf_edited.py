"""A GGUF file with an update in it: its edited matrices rounded, all else as it was."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFReader
from torch import nn

from lightning_edit.export.card import CardFacts
from lightning_edit.export.folder import write_folder
from lightning_edit.export.gguf_base import Place, find_places, in_file, open_gguf, out_of_file
from lightning_edit.export.gguf_card import MODEL
from lightning_edit.export.gguf_copy import write_copy
from lightning_edit.export.gguf_types import Rounded, check_rounded, round_to
from lightning_edit.solvers import Factors


@dataclass(frozen=True)
class EditedFile:
    """What is to be written, before it is.

    Args:
        reader: The file of the unedited model.
        modules: The edited modules by name.
        places: Where their matrices are in the file.
        rounded: What becomes of these.
    """

    reader: GGUFReader
    modules: Mapping[str, nn.Module]
    places: Mapping[str, Place]
    rounded: Mapping[str, Rounded]

    @staticmethod
    def of(base: Path, model: Any, updates: Mapping[str, Factors], kind: str, most: float | None) -> "EditedFile":
        """Rounds the sums of a file's matrices and an update.

        Args:
            base: The file of the unedited model.
            model: That model, without the update.
            updates: The update of each module.
            kind: The type to round to, see `round_to`.
            most: The largest error that is accepted, see `check_rounded`.

        Raises:
            EditError: If the edits would not survive, or the file is not the one that was edited.
        """
        reader = open_gguf(base)
        modules = {name: model.get_submodule(name) for name in updates}
        places, rounded = find_places(reader, model, modules), {}
        for name, factors in updates.items():
            place = places[name]
            update = in_file(factors.dense(), modules[name], place)
            one = round_to(place.tensor.name, place.weight, update, place.tensor.tensor_type, kind)
            check_rounded(one, most)
            rounded[name] = one
        return EditedFile(reader, modules, places, rounded)

    def left(self) -> dict[str, Factors]:
        """What the file holds of the update of each module."""
        left = {}
        for name, one in self.rounded.items():
            change = one.matrix().double() - self.places[name].weight.double()
            left[name] = Factors(out_of_file(change, self.modules[name], self.places[name]).contiguous())
        return left

    def write(self, folder: Path, facts: CardFacts) -> Path:
        """Writes the file and its card.

        Args:
            folder: A new folder.
            facts: What the card says.

        Returns:
            The file.

        Raises:
            EditError: See `check_new`.
            OSError: See `write_folder`.
        """
        edited = {one.name: one for one in self.rounded.values()}
        write_folder(folder, facts, lambda scratch: write_copy(self.reader, scratch / MODEL, edited))
        return folder / MODEL
