"""Whether the files of a model's folder are whole, told before anything is built from them and by the file's name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from lightning_edit.errors import EditError
from lightning_edit.storage.user_json import read_json

POINTER = b"version https://git-lfs"
OBJECTS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)
LONGEST = 300
QUANTIZED = " Quantized weights cannot be edited: load a model with weights of 16 bits or more."


def check_files(folder: Path) -> None:
    """Refuses a folder of which a file is empty, cut short or stands for another one.

    Args:
        folder: The folder of a transformers model.

    Raises:
        EditError: With the name of the file, and what to do.
    """
    for name in OBJECTS:
        if (folder / name).exists():
            content = _read_object(folder / name)
            if name.endswith(".index.json"):
                _check_index(folder / name, content)
    for file in sorted((*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin"))):
        _check_start(file)
        if file.suffix == ".safetensors":
            try:
                with safe_open(file, framework="pt"):
                    pass
            except (SafetensorError, OSError) as error:
                raise EditError(f"`model`: {file} is cut short or damaged ({error}). Download it again.") from error


def _check_start(file: Path) -> None:
    if not file.is_file():
        raise EditError(f"`model`: {file} should be a file, and is a folder or a broken link.")
    with file.open("rb") as stream:
        start = stream.read(len(POINTER))
    if not start:
        raise EditError(f"`model`: {file} is empty. Download it again.")
    if start == POINTER:
        raise EditError(f"`model`: {file} is a pointer of Git LFS, not the file itself. Run `git lfs pull` there.")


def _read_object(file: Path) -> dict[str, Any]:
    _check_start(file)
    try:
        content = read_json(file)
    except EditError as error:
        raise EditError(f"`model`: {error} Download it again.") from error
    if not isinstance(content, dict):
        raise EditError(f"`model`: {file} must hold a JSON object, and holds {_short(content)}. Download it again.")
    return content


def _check_index(file: Path, content: dict[str, Any]) -> None:
    shards = content.get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()) or not shards:
        raise EditError(f"`model`: {file} must name a file for each weight under `weight_map`. Download it again.")
    for shard in sorted(set(shards.values())):
        if not (file.parent / shard).is_file():
            raise EditError(f"`model`: {file} names {shard}, which is not there. Download the rest of the model.")


@contextmanager
def loading(what: str, name: str) -> Iterator[None]:
    """Says in one message why a model's files could not be made into what they should be.

    Whatever the files hold goes through code of several libraries, each with errors of its own, down to ``Exception``
    itself.

    Args:
        what: What is loaded, e.g. ``tokenizer``.
        name: What it is loaded from.

    Raises:
        EditError: If the block fails for any reason but a lack of memory.
    """
    try:
        yield
    except (EditError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise EditError(f"`model`: no {what} could be loaded from {name}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = str(error).strip()
    if "trust_remote_code" in text:
        return (
            "it needs code that comes with it. If you have read that code and trust it, set "
            "`model.trust_remote_code: true`."
        )
    if isinstance(error, ImportError):
        hint = QUANTIZED if "quantiz" in text else ""
        return f"a library that its config.json asks for is missing. {_short(text).rstrip('.')}.{hint}"
    # These say what is wrong in a sentence; what other kinds say makes sense beside their names only.
    if isinstance(error, OSError | ValueError):
        return _short(text)
    return f"its files are damaged or do not belong together ({type(error).__name__}: {_short(text)})."


def _short(thing: object) -> str:
    text = " ".join(str(thing).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
