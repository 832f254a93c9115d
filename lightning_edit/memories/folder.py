"""Memories in a folder: numbers in safetensors, words in JSON, and nothing that is run because a file names it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lightning_edit.errors import EditError
from lightning_edit.memories.entries import KINDS, memory_of, tensors_of
from lightning_edit.memories.wrapped import MadeFor, Memories
from lightning_edit.models.beside_weights import refuse_beside
from lightning_edit.models.finding.sites import oriented_weight
from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.form import Form, WrongFormError, count, each, fields, finite, text
from lightning_edit.storage.numbers import refuse_not_finite, to_json
from lightning_edit.storage.tensor_form import checksum, read_tensors, write_tensors
from lightning_edit.storage.user.files import path_of
from lightning_edit.storage.user.json import read_json

FORMAT = "lightning-edit memories 1"
WORDS, NUMBERS = "memories.json", "memories.safetensors"
# Where updates keep theirs; folders of earlier versions have none.
SAMPLE = "model_sample"
SETTINGS: Mapping[str, Form] = {
    "grace": fields({"radius": finite}),
    "memoir": fields({"top_k": count, "threshold": finite}),
    "memoir_closed": fields({"top_k": count, "threshold": finite, "ridge": finite}),
}


def save_memories(memories: Memories, folder: Path, info: Mapping[str, Any]) -> None:
    """Writes the edits of a model, as a whole or not at all.

    Args:
        memories: The edits.
        folder: Where; an older one is replaced.
        info: What made them.
    """
    memory, made_for = memories.memory, memories.made_for
    tensors = tensors_of(memory)
    sample = {} if made_for.sample is None else {SAMPLE: made_for.sample}
    words = {
        "format": FORMAT,
        "kind": memory.kind,
        "settings": memory.settings(),
        "module": made_for.module,
        "base": made_for.base,
        "edits": [{"name": entry.name, "label": entry.label} for entry in memory.entries],
        "info": {**info, **sample},
    }
    with atomic_path(folder) as scratch:
        scratch.mkdir()
        (scratch / WORDS).write_text(to_json(words, indent=2) + "\n", encoding="utf-8")
        write_tensors(scratch / NUMBERS, tensors, {"checksum": checksum(tensors, {})})


def load_memories(folder: str | Path, model: Any) -> Memories:
    """Puts the edits of a memory editor on a model.

    Args:
        folder: ``memories/`` in a run's folder.
        model: The transformers model that they were made for; its weights stay as they are.

    Returns:
        The edits, with which the model answers from now on.

    Raises:
        EditError: If there are none in the folder, they were made for another model, or the model has memories on it.

    Example:
        >>> memories = load_memories("runs/lightning_logs/version_0/memories", model)  # doctest: +SKIP
    """
    words, tensors = _read(path_of(folder, "folder", "memories"))
    weight, info = oriented_weight(_site(model, words["module"])), words["info"]
    refuse_beside(model)
    made_for = MadeFor(words["module"], words["base"], info.get(SAMPLE), info.get("model"))
    made_for.check(model)
    sizes = {"d_in": weight.shape[1], "d_out": weight.shape[0]}
    try:
        edits = [(edit["name"], edit["label"]) for edit in words["edits"]]
        memory = memory_of(words["kind"], words["settings"], tensors, edits, sizes, weight.device)
    except WrongFormError as error:
        raise EditError(f"{folder} holds no memories of this tool: {error}.") from error
    return Memories(model, made_for, memory)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not (folder / WORDS).is_file() or not (folder / NUMBERS).is_file():
        raise EditError(f"{folder} holds no memories: expected {WORDS} and {NUMBERS}, as a run of MemoryEditing has.")
    words = read_json(folder / WORDS)
    try:
        if not isinstance(words, dict) or words.get("format") != FORMAT or words.get("kind") not in KINDS:
            raise WrongFormError(WORDS, f"format {FORMAT!r} and a kind of {', '.join(KINDS)}", words)
        fields(
            {
                **dict.fromkeys(("format", "kind", "module", "base"), text),
                "settings": SETTINGS[words["kind"]],
                "edits": each(fields({"name": text, "label": text})),
                "info": fields({}, others=True),
            }
        )(words, WORDS)
        tensors, metadata = read_tensors(folder / NUMBERS)
    except WrongFormError as error:
        raise EditError(f"{folder} holds no memories of this tool: {error}.") from error
    except (SafetensorError, OSError) as error:
        raise EditError(f"{folder / NUMBERS} is not a safetensors file or is cut short: {error}") from error
    if metadata.get("checksum") != checksum(tensors, {}):
        raise EditError(f"{folder / NUMBERS} is damaged: it holds other numbers than were written. Take another copy.")
    refuse_not_finite(tensors, str(folder / NUMBERS))
    return words, tensors


def _site(model: Any, name: str) -> nn.Module:
    try:
        module: nn.Module = model.get_submodule(name)
    except AttributeError as error:
        raise EditError(f"{type(model).__name__} has no module {name}, which these edits are beside.") from error
    # Quantized maps are kinds of Linear as well, whose weights are codes.
    weight = getattr(module, "weight", None)
    if not isinstance(module, nn.Linear | Conv1D) or not (isinstance(weight, Tensor) and weight.is_floating_point()):
        raise EditError(
            f"{name} is {type(module).__name__}, and memories are put beside a plain linear map. Load the model "
            "without quantization, or keep this module out of it."
        )
    return module
