"""How value vectors are optimized."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lightning_edit.errors import EditError
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.probe import altered_on_the_way
from lightning_edit.values.batch import Site

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ValueSettings:
    """How value vectors are optimized (ROME, appendix E.5, and MEMIT, section 4.3; defaults from their GPT-2 XL).

    Args:
        lr: Learning rate of Adam.
        steps: Forward passes; the last one makes no step (`v_num_grad_steps` of the published code).
        weight_decay: Factor of ``|delta| / |z0|^2`` in the loss.
        clamp_norm_factor: After each step ``|delta|`` is at most this times ``|z0|``.
        kl_factor: Factor of the divergence on the KL prompt.
        early_stop_loss: An edit stops as soon as its loss is below this.
        mpes: An edit also stops in the pass in which, for the so many-th time, each token of the new target is the
            likeliest one after every prefixed prompt (most-probable early stopping of ENCORE, see `optimize_values`);
            null for no such stop.
        kl_prompt: What the model must go on saying of the subject; one ``{}``.
        site: Where delta is added: ``block`` to the hidden state leaving the block (MEMIT, EMMET), ``mlp`` to the
            output of the down-projection itself (ROME). Where a norm follows the MLP, as in Gemma 2, ``mlp`` alone is
            exact and is used for either, see `settle_site`.
        cache_dir: Folder of finished value vectors, found again by everything they depend on; null keeps none. It has
            no influence on results.

    Raises:
        EditError: If a number is out of its range, or the KL prompt has not exactly one ``{}``.
    """

    lr: float = 0.5
    steps: int = 20
    weight_decay: float = 0.5
    clamp_norm_factor: float = 0.75
    kl_factor: float = 0.0625
    early_stop_loss: float = 0.05
    mpes: int | None = None
    kl_prompt: str = "{} is a"
    site: Site = "block"
    cache_dir: str | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.lr <= 0 or self.clamp_norm_factor <= 0:
            raise EditError(f"`steps` >= 1, `lr` > 0 and `clamp_norm_factor` > 0 are needed, got {self}.")
        if self.mpes is not None and self.mpes < 0:
            raise EditError(f"`mpes` counts passes, from 1 on, and null or 0 stops no edit by it; got {self.mpes}.")
        # A nested null cannot be given on a command line.
        object.__setattr__(self, "mpes", self.mpes or None)
        if self.kl_prompt.count("{}") != 1:
            raise EditError(f"`kl_prompt` must hold exactly one {{}} for the subject, got {self.kl_prompt!r}.")


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
    found = (
        f"What is written at layer {layer} does not arrive at its block's output as it was written ({share:.0%} of it "
        "is altered): this model has a norm or a scaling after its MLP, so `values.site: block` would write other "
        "values than were found."
    )
    if len(layers) > 1:
        raise EditError(f"{found} Edit one layer, with `values.site: mlp`.")
    logger.warning("%s `values.site: mlp` is used instead, which is exact.", found)
    return replace(values, site="mlp")
