"""The GGUF file that a model was read from, with what one call has edited in it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning_edit.errors import EditError
from lightning_edit.export.folder import base_facts, check_new
from lightning_edit.loading.gguf_file import SUFFIX, is_gguf
from lightning_edit.messages import counted, quoted
from lightning_edit.storage.user.files import path_of
from lightning_edit.updates.model_update import ModelUpdate
from lightning_edit.updates.shown import Added, shown

if TYPE_CHECKING:
    from lightning_edit.export.gguf_types import Rounded

logger = logging.getLogger(__name__)

# Those of `lightning_edit.export.gguf_types`, which is imported once a file is written.
GGUFType = Literal["auto", "F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "MXFP4", "TQ2_0", "TQ1_0"]


@dataclass(frozen=True)
class GGUFExport:
    """An edited GGUF file that was written.

    Args:
        path: The file.
        rounded: For each edited matrix, by the name of its module, what rounding left of its update.
    """

    path: Path
    rounded: Mapping[str, "Rounded"]


def base_file(base: str | Path | None, info: Mapping[str, Any]) -> Path:
    """The GGUF file that a model was read from.

    Args:
        base: As the user names it; None for the only one in the model's folder.
        info: What is known of the update.

    Raises:
        EditError: If the package is missing, or there is no such file.
    """
    if find_spec("gguf") is None:
        raise EditError("GGUF files are written by the package gguf: pip install 'lightning-edit[gguf]'.")
    if base is not None:
        path, said = path_of(base, "base", "model.gguf"), f"got {base}, which is none"
    else:
        # transformers notes the folder alone.
        folder = Path(str(info.get("model") or "")).expanduser()
        there = sorted(folder.glob(f"*{SUFFIX}")) if info.get("model") else []
        path = there[0] if len(there) == 1 else folder
        files = counted(len(there), "such file")
        said = f"and the model only says {quoted(info.get('model'))}, where {files} are found"
    if is_gguf(path):
        return path
    raise EditError(
        f"`base` must be the GGUF file that the model was read from, {said}. Of a model that was read from an ordinary "
        "folder write an adapter by `to_lora`."
    )


def write_gguf(
    folder: Path,
    base: Path,
    model: Any,
    update: ModelUpdate,
    edits: Sequence[Mapping[str, str]],
    found: Mapping[str, Added],
    kind: GGUFType,
    most: float | None,
) -> GGUFExport:
    """Writes the file with an update in it.

    Args:
        folder: A new folder.
        base: The file that the model was read from.
        model: The model, edited or not.
        update: The update.
        edits: Those that are known, for the card.
        found: What was in the model's weights before, see `added_now`.
        kind: The type of the edited matrices, see `round_to`.
        most: The largest error of rounding, see `check_rounded`.

    Raises:
        EditError: See `EditResult.to_gguf`.
    """
    from lightning_edit.export.gguf_card import model_card
    from lightning_edit.export.gguf_edited import EditedFile

    check_new(folder)
    earlier = sum(added.total is not None for added in found.values())
    if earlier:
        which = counted(earlier, "matrix", "matrices")
        logger.warning("Edits of earlier calls, in %s, are not in the file: it holds those of this call alone.", which)
    unedited = {name: Added(added.base) for name, added in found.items()}
    unedited |= {one.module: Added(one.base) for one in update.layers.values()}
    updates = {one.module: one.factors for one in update.layers.values()}
    with shown(model, unedited):
        edited = EditedFile.of(base, model, updates, kind, most)
    facts = model_card(base_facts(str(base), None, update.info, edits), list(edited.rounded.values()))
    return GGUFExport(edited.write(folder, facts), edited.rounded)
