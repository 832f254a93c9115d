"""Models and tokenizers from a folder or the hub, with errors that say what is missing."""

from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lightning_edit.errors import EditError
from lightning_edit.models.loaded_weights import check_finite, check_loaded
from lightning_edit.models.model_files import check_files, loading
from lightning_edit.models.offloading import DeviceMap
from lightning_edit.models.tokenization import require_offsets

TINY, ADAPTER = "tiny", "adapter_config.json"
TINY_PATH = Path(__file__).parents[1] / "tiny" / "model"
Precision = Literal["auto", "float64", "float32", "bfloat16", "float16"]


def resolve(name: str) -> str:
    """The folder or hub name that a setting means; ``tiny`` is the embedded model.

    Args:
        name: A folder, a hub name or ``tiny``.

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
    if path.is_file():
        kind = "a file in llama.cpp's format" if path.suffix.lower() == ".gguf" else "a file"
        raise EditError(
            f"`model`: {name} is {kind}. Give the folder of a transformers model (config.json, tokenizer.json and "
            "*.safetensors), or a hub name."
        )
    looks_like_path = name.startswith((".", "/", "~")) or (name.count("/") != 1 and "/" in name)
    if looks_like_path or path.exists():
        raise EditError(f"`model`: there is no folder {name}. Give the folder of a transformers model, or a hub name.")
    return name


def load_tokenizer(name: str, trust_remote_code: bool = False) -> Any:
    """The fast tokenizer of a model.

    Args:
        name: See `resolve`.
        trust_remote_code: Whether code that comes with the model may be run.

    Raises:
        EditError: If there is none, or it cannot tell which characters a token covers.
    """
    path = resolve(name)
    with loading("tokenizer", name):
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    require_offsets(tokenizer)
    return tokenizer


def depth_of(name: str, trust_remote_code: bool = False) -> int:
    """The number of blocks of a model, without loading it.

    Args:
        name: See `resolve`.
        trust_remote_code: Whether code that comes with the model may be run.

    Raises:
        EditError: If its configuration cannot be read or does not say so.
    """
    path = resolve(name)
    with loading("configuration", name):
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        return int(config.get_text_config().num_hidden_layers)


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
        dtype: Precision of the weights; ``auto`` keeps that of the file.
        device_map: See `MeasuredModule`.
        offload_folder: The same.
        trust_remote_code: Whether code that comes with the model may be run.

    Raises:
        EditError: If there is no causal language model, if its files lack or have weights that it needs or has no place
            for, if a weight is not finite, or if it cannot be spread like that.
    """
    path, precision = resolve(name), dtype if dtype == "auto" else getattr(torch, dtype)
    places = {} if device_map is None else {"device_map": device_map, "offload_folder": offload_folder}
    with loading("causal language model", name):
        # Weights of another shape are told of with the missing ones, by name.
        how = {"trust_remote_code": trust_remote_code, "ignore_mismatched_sizes": True, "output_loading_info": True}
        model, loaded = AutoModelForCausalLM.from_pretrained(path, dtype=precision, **how, **places)
    check_loaded(model, loaded, name)
    check_finite(model)
    return model.eval().requires_grad_(False)
