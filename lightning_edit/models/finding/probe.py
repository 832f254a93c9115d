"""What a model does with an edited weight, found by running a few tokens and not by knowing the model."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.models.batches import pad
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.finding.sites import bias_of, by_token, capture_keys, output_size, site_biases, stacked
from lightning_edit.models.hooks import (
    Captured,
    by_position,
    capture_output,
    change_output,
    frozen,
    run_until,
)

TOKENS = 4
# Relative to the norm. A linear map in half precision or TF32 stays below it; quantized activations do not.
LINEAR_TOLERANCE, CAUSAL_TOLERANCE = 0.02, 1e-4
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
    check_readable(decoder)
    modules = [decoder.down_projection(layer) for layer in layers]
    with frozen(decoder.model):
        keys = [capture_keys(module) for module in modules]
        # Which of several maps of a block is run last is not known.
        last = modules[-1] if layers and layers[-1] < len(decoder.blocks) else None
        outputs = [capture_output(module, stop=module is last) for module in modules]
        captured = run_until(decoder.model, probe_inputs(decoder, 1), *keys, *outputs)
    for layer, key, output in zip(layers, captured[: len(layers)], captured[len(layers) :], strict=True):
        _check_linear(decoder, layer, key, output)


@torch.no_grad()
def check_readable(decoder: Decoder) -> None:
    """Refuses a model that cannot be asked for the next token of a text.

    Args:
        decoder: See `check_projections`.

    Raises:
        EditError: If the model cannot read a text alone, gives no logits for each of its tokens, or none that are
            finite; if what it says of a token depends on later ones; if a block is not run exactly once.
    """
    kind, inputs = type(decoder.model).__name__, probe_inputs(decoder, 2)
    # The second row differs in its last token.
    inputs["input_ids"][1, -1] = inputs["input_ids"][1, 0]
    runs = dict.fromkeys(range(len(decoder.blocks)), 0)
    with frozen(decoder.model), ExitStack() as stack:
        for number, block in enumerate(decoder.blocks):
            stack.enter_context(block.register_forward_pre_hook(partial(_count_run, runs, number)))
        try:
            logits = decoder.model(**inputs).logits
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            raise EditError(f"{kind} cannot be run on a text alone: {error}") from error
    if logits.shape[:2] != inputs["input_ids"].shape:
        raise EditError(f"{kind} gives logits {tuple(logits.shape)} for {inputs['input_ids'].shape[1]} tokens.")
    if not logits.isfinite().all():
        raise EditError(
            f"{kind} gives logits that are NaN or infinite for any text: its numbers overflow ({decoder.model.dtype}), "
            "or its files are damaged. Load it in float32 or bfloat16."
        )
    rounding = max(ROUNDING * torch.finfo(logits.dtype).eps, CAUSAL_TOLERANCE)
    if relative_error(logits[1, :-1], logits[0, :-1]) > rounding:
        raise EditError(
            f"{kind} reads a text in both directions: what it says of a token depends on the tokens behind it. Only "
            "decoders, which read from left to right, can be edited."
        )
    if twice := [number for number, count in runs.items() if count > 1]:
        raise EditError(
            f"Block {twice[0]} of {kind} is run {runs[twice[0]]} times in one pass; only blocks that are run once can "
            "be edited."
        )


def _count_run(runs: dict[int, int], number: int, *_: object) -> None:
    runs[number] += 1


@torch.no_grad()
def _check_linear(decoder: Decoder, layer: int, key: Captured, output: Captured) -> None:
    name, where = decoder.names[layer], f"Layer {decoder.shown(layer)}"
    # Asked for before anything is refused: a divided weight is gathered by all processes.
    weight, biases = decoder.weight(layer), site_biases(decoder.down_projection(layer))
    if not hasattr(output, "value"):
        raise EditError(f"{where}: {name} is not run when the model reads a text, so an edit of it does nothing.")
    precision = torch.promote_types(weight.dtype, torch.float32)
    keys = by_token(key.value)
    if len(keys) != TOKENS:
        raise EditError(
            f"{where}: {name} is run for {len(keys)} positions where a text has {TOKENS} tokens, so which of "
            "them is the subject's is not known."
        )
    expected = stacked(keys).to(precision) @ weight.to(precision).T
    if biases is not None:
        expected += bias_of(keys, biases.to(precision))
    if not relative_error(output.value.reshape(expected.shape), expected) <= LINEAR_TOLERANCE:
        raise EditError(
            f"{where}: {name} does not give W k + b for its input k, so it cannot be edited: it quantizes or "
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
        # A hidden state of several streams is wider than what the MLP adds to it.
        return [
            captured.value.reshape(rows, TOKENS, -1)[row, -1]
            for row, captured in enumerate(run_until(decoder.model, inputs, *captures))
        ]

    with frozen(decoder.model), ExitStack() as stack:
        plain = outputs()
        widths = [output_size(decoder.down_projection(layer)) for layer in layers]
        written = [_random_like(state[:width]) for state, width in zip(plain, widths, strict=True)]
        for row, (layer, update) in enumerate(zip(layers, written, strict=True)):
            stack.enter_context(
                change_output(decoder.down_projection(layer), partial(_added, update, row, len(layers)))
            )
        changed = outputs()
    altered = {}
    for layer, before, after, update in zip(layers, plain, changed, written, strict=True):
        same = len(before) == len(update)
        share = relative_error(after.double() - before.double(), update) if same else math.inf
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


def probe_inputs(decoder: Decoder, rows: int) -> dict[str, Any]:
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
