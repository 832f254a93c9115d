"""Whether a net goes with a model and the settings of a run."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lightning_edit.errors import EditError
from lightning_edit.gradients.net import Made
from lightning_edit.messages import listed
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.finding.places import weight_shape

if TYPE_CHECKING:
    from lightning_edit.gradients.gradient import Gradient

SHOWN = 3


def net_settings(source: "Gradient") -> dict[str, str | float]:
    """The settings that a net must be used with as it was trained.

    Args:
        source: Those of the training or the run.
    """
    # What else counts where.
    others = {"whitened": ("floor",), "none": ("mini_batch",)}.get(source.normalize, ())
    return {name: getattr(source, name) for name in ("eta", "normalize", "scale", "tokens", *others)}


def check_net(folder: str, made: Made, decoder: Decoder, places: Sequence[int], settings: Mapping[str, object]) -> None:
    """Refuses a net of another model, of other places, or trained with other settings.

    Args:
        folder: Where it is, for messages.
        made: How it was made.
        decoder: The model of the run.
        places: The edited places.
        settings: Those of the run, see `net_settings`.

    Raises:
        EditError: Says what the net is for, and what is edited.
    """
    edited = {decoder.names[place]: weight_shape(decoder, place) for place in places}
    if wrong := [name for name, shape in edited.items() if tuple(made.places.get(name, ())) != shape]:
        kind = type(decoder.model).__name__
        raise EditError(
            f"`source.net`: the net in {folder} was trained on {made.model} for {_said(made.places)}, and this "
            f"run edits {_said({name: edited[name] for name in wrong})} of {kind}. Train a net for this model and its "
            "maps with `lightning-edit train-net`, edit the maps that the net knows, or leave out `source.net`."
        )
    different = [
        f"{name}: {made.settings.get(name)!r} there, {settings.get(name)!r} here"
        for name in sorted({*made.settings, *settings})
        if made.settings.get(name) != settings.get(name)
    ]
    if different:
        raise EditError(
            f"`source.net`: the net in {folder} was trained with other settings of `source` ({'; '.join(different)}). "
            "Set them as in the training, or train a net with these."
        )


def _said(places: Mapping[str, Sequence[int]]) -> str:
    return listed([f"{name} ({shape[0]} x {shape[1]})" for name, shape in places.items()], SHOWN)
