"""Models and tokenizers from a folder or the hub, with errors that say what is missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lightning_edit.asking.tokenization import require_offsets
from lightning_edit.errors import EditError
from lightning_edit.loading.gguf_file import as_ordinary, check_gguf, is_gguf
from lightning_edit.loading.loaded_weights import check_finite, check_loaded
from lightning_edit.loading.offloading import DeviceMap
from lightning_edit.storage.user_files import check_model_name, is_there
from lightning_edit.storage.user_json import read_json

TINY, ADAPTER = "tiny", "adapter_config.json"
TINY_PATH = Path(__file__).parents[1] / "tiny" / "model"
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
QUANTIZED = " Quantized weights cannot be edited: load a model with weights of 16 bits or more."
Precision = Literal["auto", "float64", "float32", "bfloat16", "float16"]


def resolve(name: str) -> str:
    """The folder, file or hub name that a setting means; ``tiny`` is the embedded model.

    Args:
        name: A folder, a GGUF file, a hub name or ``tiny``.

    Raises:
        EditError: If it looks like a path and nothing is there, or the folder holds no model or a damaged one.
    """
    if name == TINY:
        return str(TINY_PATH)
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


def load_tokenizer(name: str, trust_remote_code: bool = False) -> Any:
    """The fast tokenizer of a model.

    Args:
        name: See `resolve`.
        trust_remote_code: Whether code that comes with the model may be run.

    Raises:
        EditError: If there is none, or it cannot tell which characters a token covers.
    """
    path, file = source(name)
    with loading("tokenizer", name):
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code, **file)
    require_offsets(tokenizer)
    return tokenizer


def read_config(name: str, trust_remote_code: bool = False) -> Any:
    """The transformers configuration of a model, without loading the model.

    Args:
        name: See `resolve`.
        trust_remote_code: Whether code that comes with the model may be run.

    Raises:
        EditError: If it cannot be read.
    """
    path, file = source(name)
    with loading("configuration", name):
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code, **file)


def depth_of(name: str, trust_remote_code: bool = False) -> int:
    """The number of blocks of a model, without loading it.

    Args:
        name: See `resolve`.
        trust_remote_code: Whether code that comes with the model may be run.

    Raises:
        EditError: If its configuration cannot be read or does not say so.
    """
    config = read_config(name, trust_remote_code)
    try:
        return int(config.get_text_config().num_hidden_layers)
    except (ValueError, TypeError, AttributeError) as error:
        raise EditError(f"`model`: how many layers {name} has could not be read: {error}") from error


def load_model(
    name: str,
    dtype: Precision = "auto",
    device_map: DeviceMap | None = None,
    offload_folder: str | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """The model in evaluation mode, without gradients.

    Args:
        name: See `resolve`.
        dtype: Precision of the weights; ``auto`` keeps that of the file (of a GGUF file, whose weights are dequantized:
            float32).
        device_map: See `MeasuredModule`.
        offload_folder: The same.
        trust_remote_code: Whether code that comes with the model may be run.

    Raises:
        EditError: If there is no causal language model, if its files lack or have weights that it needs or has no place
            for, if a weight is not finite, or if it cannot be spread like that.
    """
    (path, file), precision = source(name), dtype if dtype == "auto" else getattr(torch, dtype)
    if file and dtype == "auto":
        precision = torch.float32
    places = {} if device_map is None else {"device_map": device_map, "offload_folder": offload_folder}
    with loading("causal language model", name):
        # Weights of another shape are told of with the missing ones, by name.
        how = {"trust_remote_code": trust_remote_code, "ignore_mismatched_sizes": True, "output_loading_info": True}
        model, loaded = AutoModelForCausalLM.from_pretrained(path, dtype=precision, **how, **places, **file)
    if file:
        as_ordinary(model)
    check_loaded(model, loaded, name)
    check_finite(model)
    return model.eval().requires_grad_(False)


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
                    f"them, so they would be taken for the numbers themselves.{QUANTIZED}"
                )


def _is_quantized(config: dict[str, Any]) -> bool:
    """Whether a configuration, or that of a part of the model, says how its weights are quantized."""
    inner = (value for value in config.values() if isinstance(value, dict))
    return any(name in config for name in QUANTIZATION) or any(map(_is_quantized, inner))


def _first_codes(file: Path) -> tuple[str, str] | None:
    """The first weight in a file that is not of 16 bits or more, and what it is kept as."""
    with safe_open(file, framework="pt") as content:
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
