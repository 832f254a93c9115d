"""How value vectors are optimized."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from lightning_edit.errors import EditError
from lightning_edit.models.decoder import Decoder, ValueSite
from lightning_edit.models.finding.probe import altered_on_the_way
from lightning_edit.settings import NO_EFFECT, Count, CountOrZero, NotNegative, Positive, Range, Rate, Settings
from lightning_edit.solvers.layer_distribution import LayerDistribution
from lightning_edit.without_effect import refuse_changed

logger = logging.getLogger(__name__)

SearchedWeights = Literal["current", "unedited"]
OptimizerName = Literal["adam", "descent"]


@dataclass(frozen=True)
class ValueSettings(Settings):
    """How value vectors are optimized (ROME, appendix E.5, and MEMIT, section 4.3; defaults from their GPT-2 XL).

    Raises:
        EditError: If a number is out of its range, the KL prompt has not exactly one ``{}``, or a setting has
            no effect beside another one.
    """

    section: ClassVar[str] = "values"

    lr: Rate = 0.5
    """Learning rate of ``adam``; ``descent`` has none."""

    steps: Annotated[int, Range(at_least=2)] = 20
    """Forward passes; the last one makes no step (`v_num_grad_steps` of the published code)."""

    weight_decay: NotNegative = 0.5
    """Factor of ``|delta| / |z0|^2`` in the loss."""

    clamp_norm_factor: Positive = 0.75
    """After each step ``|delta|`` is at most this times ``|z0|``."""

    kl_factor: NotNegative = 0.0625
    """Factor of the divergence on the KL prompt."""

    early_stop_loss: NotNegative = 0.01
    """An edit stops as soon as its loss, in nats, is below this (0.05 in the papers)."""

    mpes: CountOrZero | None = None
    """Stops an edit once its answer was the most likely one in this many passes (ENCORE); null or 0 never does.

    The likeliest means each token of the new target after every prefixed prompt; this is most-probable early stopping,
    see `optimize_values`.
    """

    kl_prompt: str = "{} is a"
    """What the model must go on saying of the subject; one ``{}``."""

    site: ValueSite = "block"
    """Where delta is added: ``block`` (MEMIT, EMMET) or ``mlp`` (ROME).

    ``block`` is the hidden state leaving the block, ``mlp`` the output of the down-projection itself. Where a norm
    follows the MLP, as in Gemma 2, ``mlp`` alone is exact and is used for either, see `settle_site`.
    """

    weights: SearchedWeights = "current"
    """On which weights values are found: ``current``, edited so far, or ``unedited``, as ``SimIE`` wants it.

    On the ``unedited`` ones the values of several updates are found at once, as many as `data.batch_size` says.
    """

    norm_anchor: Positive | Literal["auto"] | None = None
    """A norm mu that the edited output of the MLP is brought to (NAS): a number, ``auto`` to measure it, null for none.

    With v* what the MLP gives plus delta, v* becomes v* mu / |v*|, and one with |v*| > 2 mu is not edited. ``auto``
    takes the mean over edits of the unedited model, see `mean_norm`.
    """

    norm_anchor_edits: Count = 1000
    """Of how many of the run's edits ``norm_anchor: auto`` takes the mean (1000 as published)."""

    cache_dir: Annotated[str | None, NO_EFFECT] = None
    """Folder of cached value vectors; null disables the cache."""

    optimizer: OptimizerName = "adam"
    """How values move between two passes: ``adam`` as published, or ``descent``, to which fewer ``steps`` do (7 to 11).

    ``descent`` is steepest descent in which the steps of each edit have a length of their own, see `Descent`. An edit
    that makes all passes ends with the best of its values.
    """

    radius: Positive = 0.3
    """Length of the first step of ``descent``, in units of ``|z0|``."""

    growth: Annotated[float, Range(at_least=1)] = 1.1
    """By how much the next step of ``descent`` is longer, after one that lowered the loss.

    Where values soon reach the clamp, 1 does better with ``radius`` 0.25.
    """

    @property
    def idle(self) -> frozenset[str]:
        """The fields that have no effect beside the others."""
        names = {"lr"} if self.optimizer == "descent" else {"radius", "growth"}
        names |= set() if self.kl_factor else {"kl_prompt"}
        return frozenset(names if self.norm_anchor == "auto" else {*names, "norm_anchor_edits"})

    def __post_init__(self) -> None:
        super().__post_init__()
        # A nested null cannot be given on a command line.
        object.__setattr__(self, "mpes", self.mpes or None)
        if self.kl_prompt.count("{}") != 1:
            raise EditError(f"`kl_prompt` must hold exactly one {{}} for the subject, got {self.kl_prompt!r}.")
        if not self.kl_factor:
            refuse_changed(self, ("kl_prompt",), "`values.kl_factor: 0`", "Raise `values.kl_factor`")
        if self.optimizer != "descent":
            beside = f"`values.optimizer: {self.optimizer}`"
            refuse_changed(self, ("radius", "growth"), beside, "Set `values.optimizer` to descent")


def check_anchored(values: ValueSettings) -> None:
    """Refuses an amount of edits to measure a norm with where none is measured.

    Args:
        values: As they were given; once the norm is measured, a number stands there.

    Raises:
        EditError: Says what would work.
    """
    if values.norm_anchor != "auto":
        norm = "null" if values.norm_anchor is None else f"{values.norm_anchor:g}"
        remedy = "Set `values.norm_anchor` to auto"
        refuse_changed(values, ("norm_anchor_edits",), f"`values.norm_anchor: {norm}`", remedy)


def settle_site(decoder: Decoder, layers: Sequence[int], values: ValueSettings) -> ValueSettings:
    """Where values are found so that what is written there is what is read: the site asked for, or ``mlp``.

    Args:
        decoder: The model. Where it is divided between processes, all of them must ask at the same time.
        layers: The edited layers, ascending.
        values: How values are to be optimized.

    Returns:
        The settings; with site ``mlp`` if an update of the one edited layer is altered before it leaves its block.

    Raises:
        EditError: If that happens with several layers.
    """
    altered = altered_on_the_way(decoder, layers) if values.site == "block" else {}
    if not altered:
        return values
    layer, share = max(altered.items(), key=lambda item: item[1])
    problem = (
        f"What is written at layer {layer} does not arrive at its block's output as it was written ({share:.0%} of it "
        "is altered): this model has a norm or a scaling after its MLP, so `values.site: block` would write other "
        "values than were found."
    )
    if len(layers) > 1:
        raise EditError(f"{problem} Edit one layer, with `values.site: mlp`.")
    logger.warning("%s `values.site: mlp` is used instead, which is exact.", problem)
    return replace(values, site="mlp")


def check_replay(layers: Sequence[int] | int | str, site: ValueSite) -> None:
    """Refuses forward replay where there is no later layer to replay.

    Args:
        layers: The edited layers, or the word with which they are to be found.
        site: Where delta is added.

    Raises:
        EditError: For a single layer, and for site ``mlp``, which a single layer has.
    """
    single = isinstance(layers, int) or (not isinstance(layers, str) and len(layers) < 2)
    if site == "mlp" or single:
        wrong = "`values.site: mlp`, which edits one" if site == "mlp" else f"`layers` {layers}"
        raise EditError(
            "`layer_distribution: replay` finds values at the lowest edited layer and gives later ones targets of "
            f"their own, so it needs two layers or more and `values.site: block`, got {wrong}. With one layer it is "
            "the same as uniform."
        )


def check_site(
    decoder: Decoder, layers: Sequence[int], site: ValueSite, distribution: LayerDistribution = "uniform"
) -> None:
    """Refuses layers at which a value cannot be written so that it is read.

    Args:
        decoder: The model.
        layers: The edited layers, ascending.
        site: Where delta is added.
        distribution: How the residual is shared between layers.

    Raises:
        EditError: For several layers with site ``mlp``, for the last block, and see `check_replay`.
    """
    if distribution == "replay":
        check_replay(layers, site)
    if site == "mlp" and len(layers) > 1:
        raise EditError(
            f"`values.site: mlp` writes one layer's own output, but layers {list(layers)} are to share it. Use "
            "`site: block`, or edit one layer."
        )
    last = len(decoder.blocks) - 1
    if layers[-1] == last:
        raise EditError(
            f"Layer {last} is the last block: what is written at the subject there reaches no later token, so the "
            f"answer cannot change. Edit layers from 0 to {last - 1}."
        )
