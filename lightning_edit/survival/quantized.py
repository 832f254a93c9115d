"""The edited model with all of its linear maps quantized, the edited ones among them, as it is deployed."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.loading.dequantization import holds_codes
from lightning_edit.loading.pretrained import load_model
from lightning_edit.loading.quantization import check_quantization
from lightning_edit.models.decoder import Decoder
from lightning_edit.survival.bench import Bench

# The model's files lie in it as long as they are read; it is deleted whatever happens, but for a kill.
PREFIX = "lightning-edit-survive."


def check_unquantized(bench: Bench) -> None:
    """Refuses a model whose weights are codes already.

    Args:
        bench: The model and its edits.

    Raises:
        EditError: If the run's model is quantized.
    """
    if bench.base.codes or holds_codes(bench.base.model):
        raise EditError("the run's model is quantized already, so its weights are neither quantized nor trained here.")


@contextmanager
def quantized(bench: Bench, quantization: Any, folder: Path) -> Iterator[Decoder]:
    """The edited model, quantized, inside a ``with`` block; the base model is let go for that time.

    Files are read by transformers alone, so the edited model is written first, in the precision of the run.

    Args:
        bench: The model and its edits.
        quantization: One of `Quantization`.
        folder: Where there is room for the model's files for a while.

    Raises:
        EditError: If a package is missing or the model cannot be quantized like that.
    """
    check_quantization(quantization)
    check_unquantized(bench)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=folder) as scratch:
        with bench.edited():
            bench.base.model.save_pretrained(scratch)
        trusted, as_decoder = bench.source.trust_remote_code, _like(bench.decoder)
        bench.release()
        model = load_model(scratch, trust_remote_code=trusted, quantization=quantization)
    yield as_decoder(bench.place(model))


def _like(decoder: Decoder) -> Callable[[Any], Decoder]:
    """Finds the parts of a model by those of the plain one: in codes there is nothing that could be edited."""
    name = next(name for name, module in decoder.model.named_modules() if module is decoder.blocks)
    # The model itself must not be held.
    names, refusals = decoder.names, decoder.refusals
    return lambda model: Decoder(model, model.get_submodule(name), names, refusals)
