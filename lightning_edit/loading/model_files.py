"""The files of a model: where a setting finds them, and whether they are whole, before anything is loaded from them."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lightning_edit.errors import EditError
from lightning_edit.loading.gguf_file import check_gguf, is_gguf
from lightning_edit.storage.user.files import check_model_name, is_there
from lightning_edit.storage.user.json import read_json
from lightning_edit.tiny import MODELS

ADAPTER = "adapter_config.json"
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
QUANTIZATION = ("quantization_config", "compression_config")
FLOATS = ("F32", "BF16", "F16", "F64")
LONGEST = 300


def resolve(name: str) -> str:
    """The folder, file or hub name that a setting means; ``tiny`` and ``tiny-moe`` are embedded models.

    Args:
        name: A folder, a GGUF file, a hub name or an embedded model.

    Raises:
        EditError: If it looks like a path and nothing is there, or the folder holds no model or a damaged one.
    """
    if name in MODELS:
        return str(MODELS[name])
    path = Path(name).expanduser()
    if path.is_dir():
        if (path / ADAPTER).exists():
            raise EditError(
                f"`model`: {name} holds a PEFT adapter ({ADAPTER}), and the edit of a model that carries one would be "
                "lost. Merge it into its base model first: peft.AutoPeftModelForCausalLM.from_pretrained(...)."
                "merge_and_unload().save_pretrained(...)."
            )
        if not (path / "config.json").is_file():
            raise EditError(f"`model`: the folder {name} holds no config.json, so it is no transformers model.")
        check_files(path)
        return str(path)
    if is_gguf(path):
        check_gguf(path)
        return str(path)
    if path.is_file():
        raise EditError(
            f"`model`: {name} is a file. Give the folder of a transformers model (config.json, tokenizer.json and "
            "*.safetensors), a GGUF file, or a hub name."
        )
    check_model_name(name)
    if is_there(name):
        raise EditError(f"`model`: {name} is no folder. Give the folder of a transformers model, or a hub name.")
    return name


def source(name: str) -> tuple[str, dict[str, str]]:
    """Where transformers finds a model: a folder or hub name, and the name of the file in it for one in GGUF.

    Args:
        name: See `resolve`.

    Raises:
        EditError: See `resolve`.
    """
    place = resolve(name)
    path = Path(place)
    return (str(path.parent), {"gguf_file": path.name}) if is_gguf(path) else (place, {})


def check_files(folder: Path) -> None:
    """Refuses a folder of which a file is empty, cut short or stands for another one.

    Args:
        folder: The folder of a transformers model.

    Raises:
        EditError: With the name of the file, and what to do.
    """
    says_how = False
    for name in OBJECTS:
        if (folder / name).exists():
            content = _read_object(folder / name)
            says_how |= name == "config.json" and _is_quantized(content)
            if name.endswith(".index.json"):
                _check_index(folder / name, content)
    for file in sorted((*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin"))):
        _check_start(file)
        if file.suffix == ".safetensors":
            try:
                codes = None if says_how else _first_codes(file)
            except (SafetensorError, OSError) as error:
                raise EditError(f"`model`: {file} is cut short or damaged ({error}). Download it again.") from error
            if codes is not None:
                raise EditError(
                    f"`model`: {file} holds {codes[0]} as codes ({codes[1]}), and config.json does not say how to read "
                    "them, so they would be taken for the numbers themselves. Give a model whose config.json has a "
                    "`quantization_config`, or one with weights of 16 bits or more."
                )


def _is_quantized(config: dict[str, Any]) -> bool:
    """Whether a configuration, or that of a part of the model, says how its weights are quantized."""
    inner = (value for value in config.values() if isinstance(value, dict))
    return any(name in config for name in QUANTIZATION) or any(map(_is_quantized, inner))


def _first_codes(file: Path) -> tuple[str, str] | None:
    """The first weight in a file that is not of 16 bits or more, and what it is kept as."""
    with safe_open(file, framework="np") as content:
        for name in content.keys():  # noqa: SIM118
            kept_as = content.get_slice(name).get_dtype() if name.endswith(".weight") else FLOATS[0]
            if kept_as not in FLOATS:
                return name, kept_as
    return None


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
        raise EditError(f"`model`: {file} must hold a JSON object, and holds {short(content)}. Download it again.")
    return content


def _check_index(file: Path, content: dict[str, Any]) -> None:
    shards = content.get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()) or not shards:
        raise EditError(f"`model`: {file} must name a file for each weight under `weight_map`. Download it again.")
    for shard in sorted(set(shards.values())):
        if not (file.parent / shard).is_file():
            raise EditError(f"`model`: {file} names {shard}, which is not there. Download the rest of the model.")


def short(thing: object) -> str:
    """What a file holds, or another library says, in at most so many characters.

    Args:
        thing: A value or a text.
    """
    text = " ".join(str(thing).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
