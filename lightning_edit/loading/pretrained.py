"""Models and tokenizers from a folder or the hub, with errors that say what is missing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lightning_edit.asking.tokenization import require_offsets
from lightning_edit.errors import EditError
from lightning_edit.loading.dequantization import keep_usable, make_plain, unmark_dequantized
from lightning_edit.loading.gguf_file import as_ordinary
from lightning_edit.loading.gguf_reader import read_once
from lightning_edit.loading.loaded_weights import check_finite, check_loaded
from lightning_edit.loading.model_files import short, source
from lightning_edit.loading.offloading import DeviceMap
from lightning_edit.loading.quantization import check_quantization, check_stated, loading_options, stated_method
from lightning_edit.loading.skeleton import skeleton_of
from lightning_edit.loading.weight_forms import Precision, Quantization
from lightning_edit.models.decoder import check_numbers
from lightning_edit.models.finding.routed_keys import is_experts


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
    # Where files are missing transformers makes one that knows no token.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise EditError(f"`model`: {name} holds no tokenizer. Put its files, such as tokenizer.json, beside the model.")
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


def check_stated_layers(name: str, layers: Sequence[int] | int, trust_remote_code: bool = False) -> None:
    """Refuses layers that a model cannot have by its configuration, before it is loaded.

    Args:
        name: See `resolve`.
        layers: Numbers of blocks.
        trust_remote_code: Whether code that comes with the model may be run.

    Raises:
        EditError: See `check_numbers`.
    """
    try:
        depth = depth_of(name, trust_remote_code)
    except EditError:
        # Who loads the model knows its depth, or says what is wrong.
        return
    check_numbers(depth, layers)


def load_model(
    name: str,
    dtype: Precision = "auto",
    device_map: DeviceMap | None = None,
    offload_folder: str | None = None,
    trust_remote_code: bool = False,
    quantization: Quantization | None = None,
    plain: Sequence[str] = (),
) -> Any:
    """The model in evaluation mode, without gradients.

    Args:
        name: See `resolve`.
        dtype: Precision of the weights; ``auto`` keeps that of the file (of a GGUF file, whose weights are dequantized:
            float32).
        device_map: See `MeasuredModule`.
        offload_folder: The same.
        trust_remote_code: Whether code that comes with the model may be run.
        quantization: How its linear maps are quantized as it is loaded; None leaves them as the files have them.
        plain: The names of the modules that are to be edited: they are left out when the model is quantized, and
            dequantized where its files are.

    Raises:
        EditError: If there is no causal language model, if its files lack or have weights that it needs or has no place
            for, if a weight is not finite, if it cannot be spread like that, or if it cannot be quantized.
    """
    skeleton = load_skeleton(name, dtype, quantization, trust_remote_code)
    (path, file), precision = source(name), dtype if dtype == "auto" else getattr(torch, dtype)
    if file and dtype == "auto":
        precision = torch.float32
    places = {} if device_map is None else {"device_map": device_map, "offload_folder": offload_folder}
    with loading("causal language model", name), read_once(name):
        # Weights of another shape are told of with the missing ones, by name.
        how = {"trust_remote_code": trust_remote_code, "ignore_mismatched_sizes": True, "output_loading_info": True}
        if skeleton is not None:
            how |= loading_options(quantization, skeleton, plain, precision)
        model, loaded = AutoModelForCausalLM.from_pretrained(path, dtype=precision, **how, **places, **file)
    if file:
        as_ordinary(model)
    if model.dtype == torch.float64 and any(map(is_experts, model.modules())):
        # What transformers takes by default knows no float64.
        model.set_experts_implementation("batched_mm")
    check_loaded(model, loaded, name)
    check_finite(model)
    if skeleton is not None:
        unmark_dequantized(model)
        keep_usable(model)
        make_plain(model, skeleton, plain)
    return model.eval().requires_grad_(False)


def load_skeleton(
    name: str, dtype: str = "auto", quantization: Quantization | None = None, trust_remote_code: bool = False
) -> Any:
    """The modules of a model that is quantized, or is to be, without weights; None of any other model.

    Args:
        name: See `resolve`.
        dtype: See `load_model`.
        quantization: The same.
        trust_remote_code: Whether code that comes with the model may be run.

    Raises:
        EditError: If a package is missing that is needed to load it, or it cannot be quantized like that.
    """
    check_quantization(quantization, dtype)
    path, file = source(name)
    if file:
        if quantization is not None:
            raise EditError(
                f"`quantization: {quantization}`: a GGUF file is dequantized as it is read, and transformers cannot "
                "quantize it anew in the same step. Save it as a folder first: lightning_edit.loading.pretrained."
                "load_model(FILE).save_pretrained(FOLDER), and the tokenizer beside it."
            )
        return None
    with loading("causal language model", name), read_once(name):
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        method = stated_method(config)
        check_stated(method, quantization, name)
        return None if method is None and quantization is None else skeleton_of(config, trust_remote_code)


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
        return f"a library that its config.json asks for is missing. {short(text).rstrip('.')}."
    # These say what is wrong in a sentence; what other kinds say makes sense beside their names only.
    if isinstance(error, OSError | ValueError):
        return short(text)
    return f"its files are damaged or do not belong together ({type(error).__name__}: {short(text)})."
