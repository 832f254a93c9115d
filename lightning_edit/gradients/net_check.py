"""Whether a net goes with a model and the settings of a run."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lightning_edit.errors import EditError
from lightning_edit.gradients.net import Made
from lightning_edit.messages import listed
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.finding.places import weight_shape
from lightning_edit.solvers import Solver

if TYPE_CHECKING:
    from lightning_edit.gradients.gradient import Gradient

logger = logging.getLogger(__name__)

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
    names = {*made.settings, *settings}
    if made.settings.get("normalize") != settings.get("normalize"):
        # What counts beside the one has no effect beside the other.
        names = {*made.settings} & {*settings}
    different = [
        f"{name}: {made.settings.get(name)!r} there, {settings.get(name)!r} here"
        for name in sorted(names)
        if made.settings.get(name) != settings.get(name)
    ]
    if different:
        raise EditError(
            f"`source.net`: the net in {folder} was trained with other settings of `source` ({'; '.join(different)}). "
            "Set them as in the training, or train a net with these."
        )


def warn_of_solver(folder: str, made: Made, solver: Solver) -> None:
    """Says so where a net is used with another solver than in its training, or with another ridge.

    Args:
        folder: Where it is, for the warning.
        made: How it was made.
        solver: That of the run.
    """
    if made.solver != repr(solver):
        logger.warning(
            "`source.net`: the net in %s was trained with the solver %s, and this run writes with %s. It multiplies "
            "the ridge and steps of its training; with others, edits may be too weak or too strong.",
            folder,
            made.solver,
            solver,
        )


def _said(places: Mapping[str, Sequence[int]]) -> str:
    return listed([f"{name} ({shape[0]} x {shape[1]})" for name, shape in places.items()], SHOWN)
