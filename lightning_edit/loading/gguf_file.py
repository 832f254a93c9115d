"""Models in one GGUF file (llama.cpp's format): read by transformers, dequantized, and from then on ordinary models."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning_edit.errors import EditError

SUFFIX, MAGIC = ".gguf", b"GGUF"
QUANTIZED_AS = ("quantization_method", "hf_quantizer")


def is_gguf(path: Path) -> bool:
    """Whether a setting means a GGUF file.

    Args:
        path: What was given.
    """
    return path.suffix.lower() == SUFFIX and path.is_file()


def check_gguf(path: Path) -> None:
    """Refuses a file that is not GGUF, and any where the package that reads it is missing.

    Args:
        path: The file.

    Raises:
        EditError: With what is wrong and what to do.
    """
    with path.open("rb") as stream:
        start = stream.read(len(MAGIC))
    if start != MAGIC:
        raise EditError(f"`model`: {path} is named {SUFFIX} and does not begin like a GGUF file. Download it again.")
    if find_spec("gguf") is None:
        raise EditError("`model`: a GGUF file is read by the package gguf: pip install 'lightning-edit[gguf]'.")


def as_ordinary(model: Any) -> Any:
    """Takes from a model that was dequantized as it was read what marks it as quantized.

    transformers keeps the mark, and would refuse to save the model ("quantized with gguf and is not serializable").

    Args:
        model: A model whose weights are plain numbers.

    Returns:
        The same model.
    """
    for name in QUANTIZED_AS:
        if hasattr(model, name):
            delattr(model, name)
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model
