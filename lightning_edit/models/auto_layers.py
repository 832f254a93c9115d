"""``layers: auto``: the layers of a preset for the model, or else the block a quarter of the way up."""

import logging
from collections.abc import Sequence

from lightning_edit.errors import EditError
from lightning_edit.messages import counted, quoted
from lightning_edit.models.decoder import Decoder, check_layers
from lightning_edit.models.finding.places import places_of
from lightning_edit.models.presets import preset_for

logger = logging.getLogger(__name__)

AUTO = "auto"


def settle_layers(
    layers: Sequence[int] | int | str | None, decoder: Decoder, solver: str | None = None, several: bool = True
) -> list[int]:
    """The layers to edit, in ascending order; those that are chosen here are logged, with the reason.

    Args:
        layers: Their numbers, the lowest block is 0; ``auto`` or None to choose them.
        decoder: The model.
        solver: The name of the solver's class, for which a preset may be made; None to look for no preset.
        several: Whether there can be more than one.

    Raises:
        EditError: If ``layers`` is another text, and see `check_layers`.
    """
    if isinstance(layers, str) and layers != AUTO:
        raise EditError(f"`layers` must be {AUTO} or numbers of blocks such as [5], got {quoted(layers)}.")
    if layers is not None and not isinstance(layers, str):
        return check_layers(decoder, layers)
    chosen, why = _chosen(decoder, solver, several)
    logger.warning("layers: %s, %s", chosen, why)
    return check_layers(decoder, chosen)


def settle_places(
    layers: Sequence[int] | int | str | None,
    decoder: Decoder,
    solver: str | None = None,
    several: bool = True,
    maps: Sequence[str] = (),
) -> list[int]:
    """The places to edit, in ascending order.

    Args:
        layers: See `settle_layers`.
        decoder: See `places_of`.
        solver: See `settle_layers`.
        several: See `settle_layers`.
        maps: See `places_of`.

    Raises:
        EditError: See `settle_layers` and `places_of`.
    """
    return places_of(decoder, settle_layers(layers, decoder, solver, several), maps)


def _chosen(decoder: Decoder, solver: str | None, several: bool) -> tuple[list[int], str]:
    """Layers, and why these."""
    config, depth = decoder.model.config, len(decoder.blocks)
    preset = None if solver is None else preset_for(config, solver)
    if preset is not None:
        return preset.layers_for(several), f"from {preset}."
    quarter = depth // 4
    # The last block cannot be edited either.
    editable = [layer for layer in range(max(depth - 1, 1)) if layer not in decoder.refusals]
    layer = min(editable, key=lambda one: abs(one - quarter), default=quarter)
    text = config.get_text_config()
    shape = f"{text.model_type}, {depth} blocks, hidden size {getattr(text, 'hidden_size', 'unknown')}"
    none = "" if solver is None else f": configs/models/ has no preset for such a model ({shape})"
    guess = f"a quarter of the way up the {counted(depth, 'block')}. This is a guess{none}."
    return [layer], f"{guess} `lightning-edit tune` looks for better ones."
