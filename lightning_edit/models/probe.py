"""What a model does with an edited weight, found by running a few tokens and not by knowing the model."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import linear

from lightning_edit.distributed.sharded_weights import whole
from lightning_edit.errors import EditError
from lightning_edit.models.batches import pad
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.hooks import (
    Captured,
    by_position,
    capture_input,
    capture_output,
    change_output,
    frozen,
    run_until,
)

TOKENS = 4
# Relative to the norm. A linear map in half precision or TF32 stays below it; quantized activations do not.
LINEAR_TOLERANCE = 0.02
# How much of an update may be lost on its way, in multiples of the rounding of hidden states, and at least.
ROUNDING, ARRIVAL_TOLERANCE = 8, 1e-3


def check_projections(decoder: Decoder, layers: Sequence[int]) -> None:
    """Refuses layers whose module does not give W k + b, so that a changed W would not give (W + Delta) k + b.

    A model whose answers are no numbers is refused as well.

    Args:
        decoder: The model, whose edited weights are in memory. Where it is divided between processes, all of them must
            ask at the same time.
        layers: The edited layers, ascending.

    Raises:
        EditError: If a module is not run by the model, or does something else with its weight; if logits are NaN or
            infinite.
    """
    modules = [decoder.down_projection(layer) for layer in layers]
    with frozen(decoder.model):
        keys = [capture_input(module) for module in modules]
        outputs = [capture_output(module, stop=module is modules[-1]) for module in modules]
        captured = run_until(decoder.model, probe_inputs(decoder, 1), *keys, *outputs)
    for layer, key, output in zip(layers, captured[: len(layers)], captured[len(layers) :], strict=True):
        _check_linear(decoder, layer, key, output)
    with frozen(decoder.model):
        (logits,) = run_until(decoder.model, probe_inputs(decoder, 1), capture_output(decoder.head, stop=True))
    if hasattr(logits, "value") and not logits.value.isfinite().all():
        raise EditError(
            f"{type(decoder.model).__name__} gives logits that are NaN or infinite for any text: its numbers overflow "
            f"({decoder.model.dtype}), or its files are damaged. Load it in float32 or bfloat16."
        )


@torch.no_grad()
def _check_linear(decoder: Decoder, layer: int, key: Captured, output: Captured) -> None:
    name, bias = decoder.names[layer], getattr(decoder.down_projection(layer), "bias", None)
    # Asked for before anything is refused: a divided weight is gathered by all processes.
    weight, bias = decoder.weight(layer), bias if bias is None else whole(bias)
    if not hasattr(output, "value"):
        raise EditError(f"Layer {layer}: {name} is not run when the model reads a text, so an edit of it does nothing.")
    precision = torch.promote_types(weight.dtype, torch.float32)
    expected = linear(key.value.to(precision), weight.to(precision), None if bias is None else bias.to(precision))
    if not relative_error(output.value, expected) <= LINEAR_TOLERANCE:
        raise EditError(
            f"Layer {layer}: {name} does not give W k + b for its input k, so it cannot be edited: it quantizes or "
            "scales what it is given. Load the model without quantization or adapters, e.g. in bfloat16."
        )


def altered_on_the_way(decoder: Decoder, layers: Sequence[int]) -> dict[int, float]:
    """The layers whose update does not arrive unchanged at their block's output, found by a random one.

    A norm or a scaling after the MLP alters what is written: |arrived - written| / |written| is 0 in most models, and
    near 1 with the norms of Gemma 2.

    Args:
        decoder: The model. Where it is divided between processes, all of them must ask at the same time.
        layers: The edited layers, ascending.

    Returns:
        That share for each layer where it is more than rounding.
    """
    inputs = probe_inputs(decoder, len(layers))
    blocks = [decoder.blocks[layer] for layer in layers]

    def outputs() -> list[Tensor]:
        captures = [capture_output(block, stop=block is blocks[-1]) for block in blocks]
        rows = len(inputs["input_ids"])
        # One row for each layer: only there is its update written.
        return [
            by_position(captured.value, rows)[row, -1]
            for row, captured in enumerate(run_until(decoder.model, inputs, *captures))
        ]

    with frozen(decoder.model), ExitStack() as stack:
        plain = outputs()
        written = [_random_like(state) for state in plain]
        for row, (layer, update) in enumerate(zip(layers, written, strict=True)):
            stack.enter_context(
                change_output(decoder.down_projection(layer), partial(_added, update, row, len(layers)))
            )
        changed = outputs()
    altered = {}
    for layer, before, after, update in zip(layers, plain, changed, written, strict=True):
        share = relative_error(after.double() - before.double(), update)
        if not share <= max(ROUNDING * torch.finfo(before.dtype).eps, ARRIVAL_TOLERANCE):
            altered[layer] = share
    return altered


def _random_like(state: Tensor) -> Tensor:
    """A random vector as long as a hidden state, rounded as those are."""
    drawn = torch.randn(len(state), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scaled = drawn * state.double().norm().cpu() / drawn.norm()
    return scaled.to(state.dtype).to(state.device).double()


def _added(update: Tensor, row: int, rows: int, states: Tensor) -> Tensor:
    changed = by_position(states, rows).clone()
    changed[row, -1] += update.to(changed)
    return changed.reshape(states.shape)


def probe_inputs(decoder: Decoder, rows: int) -> dict[str, Tensor]:
    """Keyword arguments of a forward pass over a few tokens.

    Args:
        decoder: The model.
        rows: How often the same tokens are run side by side.
    """
    vocabulary = decoder.model.config.get_text_config().vocab_size
    return pad([[i % vocabulary for i in range(1, TOKENS + 1)]] * rows, decoder.device).inputs()


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected| over all entries; not a number where either is not finite."""
    difference = (actual.to(expected.dtype) - expected).norm()
    return float(difference / expected.norm()) if difference != 0 else 0.0
