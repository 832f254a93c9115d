"""Models whose linear maps are quantized, by a setting or in their own files: what that needs, and how they are loaded.

The matrices that are edited are never quantized: they are left out when a model is quantized as it is loaded, and
dequantized in one that was quantized before (`dequantization`).
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple, get_args

import torch
from torch import nn
from transformers import BitsAndBytesConfig, Mxfp4Config, TorchAoConfig
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert

from lightning_edit.errors import EditError
from lightning_edit.loading.weight_forms import Quantization
from lightning_edit.messages import quoted

# transformers' name of the method that a setting stands for, by the beginning of the setting.
TORCHAO, MXFP4 = "torchao", "mxfp4"
METHODS = {"bnb": "bitsandbytes", "torchao": TORCHAO}


class Library(NamedTuple):
    """What reads models that are quantized in some way.

    Args:
        packages: The names of the packages.
        install: What pip installs.
    """

    packages: tuple[str, ...]
    install: str


LIBRARIES = {
    "bitsandbytes": Library(("bitsandbytes", "accelerate"), "'lightning-edit[bnb]'"),
    "torchao": Library(("torchao",), "'lightning-edit[torchao]'"),
    "gptq": Library(("gptqmodel", "optimum"), "gptqmodel optimum"),
    "awq": Library(("gptqmodel", "accelerate"), "gptqmodel accelerate"),
    "compressed-tensors": Library(("compressed_tensors",), "compressed-tensors"),
    "fp8": Library(("accelerate",), "'lightning-edit[accelerate]'"),
}


def check_quantization(quantization: str | None, dtype: str = "auto") -> None:
    """Refuses a quantization that cannot be, before anything is loaded.

    Args:
        quantization: One of `Quantization`; None for none.
        dtype: The precision of what is not quantized, as the setting has it.

    Raises:
        EditError: If there is no such quantization, a package for it is missing, or the precision is too high for it.
    """
    if quantization is None:
        return
    if quantization not in get_args(Quantization):
        raise EditError(
            f"`quantization` must be null or one of {', '.join(get_args(Quantization))}, got {quoted(quantization)}."
        )
    _check_library(method_of(quantization), f"`quantization: {quantization}`")
    if dtype == "float64":
        raise EditError(f"`quantization: {quantization}` computes in 32 bits or fewer: set `dtype: float32`.")


def method_of(quantization: str) -> str:
    """Transformers' name of the method that a setting stands for.

    Args:
        quantization: One of `Quantization`.
    """
    return METHODS[quantization.partition("-")[0]]


def stated_method(config: Any) -> str | None:
    """How the files of a model say that they are quantized, e.g. ``bitsandbytes``; None where they are not.

    Args:
        config: The model's transformers configuration.
    """
    for part in (config, config.get_text_config()):
        stated = getattr(part, "quantization_config", None)
        if stated is not None:
            method = stated.get("quant_method") if isinstance(stated, Mapping) else getattr(stated, "quant_method", "")
            return str(getattr(method, "value", method))
    return None


def check_stated(method: str | None, quantization: str | None, name: str) -> None:
    """Refuses files that are quantized in a way that nothing here reads, or that are to be quantized once more.

    Args:
        method: See `stated_method`.
        quantization: The setting.
        name: What the model is loaded from.

    Raises:
        EditError: If a package is missing, or if ``quantization`` is given as well.
    """
    if method is None:
        return
    if quantization is not None:
        raise EditError(
            f"`quantization: {quantization}`: the files of {name} are quantized already ({method}). Leave the setting "
            "out, or give a model with weights of 16 bits or more."
        )
    _check_library(method, f"`model`: {name}")


def _check_library(method: str, what: str) -> None:
    library = LIBRARIES.get(method, Library((), ""))
    missing = [package for package in library.packages if find_spec(package) is None]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise EditError(f"{what} needs {' and '.join(missing)}, which {are} missing: pip install {library.install}.")


def loading_options(quantization: str | None, skeleton: Any, plain: Sequence[str], dtype: Any) -> dict[str, Any]:
    """The arguments of ``from_pretrained`` by which it quantizes all linear maps but some.

    Args:
        quantization: One of `Quantization`, or None where the files may be quantized.
        skeleton: The model without its weights.
        plain: The names of the modules that are left as they are.
        dtype: The precision of what is not quantized, ``auto`` for that of the configuration.

    Raises:
        EditError: If the model has no linear map that can be quantized like that.
    """
    if quantization is None:
        # Its experts are in codes for which there is no gradient.
        dequantized = stated_method(skeleton.config) == MXFP4
        return {"quantization_config": Mxfp4Config(dequantize=True)} if dequantized else {}
    # Given names take the place of those that transformers leaves out by itself, e.g. the head.
    skipped = sorted({*get_keys_to_not_convert(skeleton), *plain})
    kinds = (nn.Linear, Conv1D) if quantization.startswith("bnb") else (nn.Linear,)
    if not any(isinstance(part, kinds) and name not in skipped for name, part in skeleton.named_modules()):
        raise EditError(
            f"`quantization: {quantization}` finds no linear map of {type(skeleton).__name__} to quantize: torchao "
            "knows torch.nn.Linear only. Set bnb-4bit or bnb-8bit, or leave it out."
        )
    if dtype == "auto":
        dtype = getattr(skeleton.config.get_text_config(), "dtype", None) or torch.float32
    return {"quantization_config": _settings(quantization, skipped, dtype)}


def _settings(quantization: str, skipped: list[str], dtype: torch.dtype) -> Any:
    if quantization == "bnb-4bit":
        how = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
        return BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=skipped, **how)
    if quantization == "bnb-8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    # Needs the library.
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

    kind = Int8WeightOnlyConfig() if quantization == "torchao-int8" else Float8WeightOnlyConfig()
    return TorchAoConfig(kind, modules_to_not_convert=skipped)
