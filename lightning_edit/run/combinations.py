"""Settings of a run that mean nothing together, refused before anything is loaded."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from lightning_edit.asking.chat import chat_of
from lightning_edit.errors import EditError
from lightning_edit.gradients.source import Source
from lightning_edit.keys.layer_stats import NOT_COUNTED, SecondMomentSettings
from lightning_edit.keys.text_moments import check_outputs
from lightning_edit.loop.sourced import check_source, check_sum, warn_of_search, without_moments
from lightning_edit.requests import replaced_by
from lightning_edit.run.idle import emmet_is_exact
from lightning_edit.solvers import Anchor, EvoEdit, LyapLock, SimIE
from lightning_edit.solvers.checks import check_second_moments
from lightning_edit.values.settings import check_anchored, check_replay
from lightning_edit.without_effect import changed

if TYPE_CHECKING:
    from lightning_edit.run.module import EditingModule

logger = logging.getLogger(__name__)


def check_combinations(module: "EditingModule", previous_keys: bool | None, layers: Sequence[int] | int | str) -> None:
    """Refuses settings that mean nothing together.

    Args:
        module: The module that is being made, its settings known.
        previous_keys: As the user gave it.
        layers: As the user gave them.

    Raises:
        EditError: Names what to change.
    """
    single = module.loop.queue.size is None
    if emmet_is_exact(module) and changed(module.solver, ["emmet_lambda"]):
        raise EditError(
            "`solver.emmet_lambda` has no effect with `edits_per_update: 1`: for a single edit it is 0. Raise "
            "`edits_per_update`, or leave it out."
        )
    check_outputs(module.moment_settings.source, module.solver)
    check_anchored(module.value_settings)
    if not module.solver.needs_second_moment:
        _warn_of_moments(module.moment_settings, without_moments(module.solver)[0])
    check_sum(
        module.solver,
        module.pairs_from,
        "anchor" if module.update_anchor else "previous_keys" if previous_keys else None,
    )
    if module.pairs_from is not None:
        check_source(module.pairs_from, module.solver, module.distribution, module.value_settings)
        _check_source_anchor(module.pairs_from, module.update_anchor)
        warn_of_search(module.value_settings, module.pairs_from)
        if module.key_average != "nested":
            logger.warning("`key_average` has no effect with `source`, for which each context is a text of its own.")
    if module.loop.independent and (previous_keys or module.on_top_of or module.update_anchor):
        wrong = "previous_keys" if previous_keys else "on_top_of" if module.on_top_of else "anchor"
        raise EditError(f"`{wrong}`: with `independent_updates` no update knows the earlier ones. Give one of them.")
    if previous_keys and single and not module.on_top_of:
        raise EditError(
            "`previous_keys` preserves earlier updates, but all edits are written in one: set `edits_per_update`."
        )
    if module.update_anchor is not None:
        _check_anchor(module, module.update_anchor, previous_keys, single)
    if module.distribution == "replay":
        check_replay(layers, module.value_settings.site)


def _warn_of_moments(settings: SecondMomentSettings, beside: str) -> None:
    """Says which settings have no effect; presets of models bring some, so they are not refused."""
    if other := [f"`second_moment.{name}`" for name in changed(settings, NOT_COUNTED)]:
        logger.warning("These settings have no effect beside %s: %s.", beside, ", ".join(other))


def _check_source_anchor(source: Source, anchor: Anchor | None) -> None:
    if anchor is not None and anchor.from_unedited:
        raise EditError(
            f"`anchor: {type(anchor).__name__}` writes values that were found on the unedited weights, and "
            f"{type(source).__name__} finds its pairs on those that are edited. Leave one of them out."
        )
    if isinstance(anchor, EvoEdit) and source.preserve_text:
        raise EditError(
            "`anchor: EvoEdit` preserves by a null space of its own, and the text around the edits is not in it: set "
            "`source.preserve_text: false`, or leave the anchor out."
        )


def _check_anchor(module: "EditingModule", anchor: Anchor, previous_keys: bool | None, single: bool) -> None:
    name = type(anchor).__name__
    anchor.check(module.solver)
    if single:
        raise EditError(
            f"`anchor: {name}` holds later updates to earlier ones, but all edits are written in one: set "
            "`edits_per_update`."
        )
    if previous_keys is not None and previous_keys is not anchor.keeps_keys:
        why = "needs the keys of earlier edits" if anchor.keeps_keys else "has its own way with earlier edits"
        right = str(anchor.keeps_keys).lower()
        raise EditError(f"`anchor: {name}` {why}: set `previous_keys: {right}`, or leave it out.")
    if module.on_top_of:
        raise EditError(
            f"`anchor: {name}` must have seen all earlier updates, and those of `on_top_of` were another run's. Go on "
            "with that run by `ckpt_path`, or build upon it without an anchor, with `previous_keys: true`."
        )
    if isinstance(anchor, LyapLock) and module.moment_settings.source == "none":
        raise EditError(
            "`anchor: LyapLock` bounds what is lost of C, and with `second_moment.source: none` there is no C. Take it "
            "from text, or use `previous_keys: true` without an anchor."
        )
    if anchor.from_unedited and module.value_settings.weights != "unedited":
        raise EditError(
            f"`anchor: {name}` solves every update on the unedited weights, where its values must have been found: set "
            "`values.weights: unedited`."
        )


def check_sites(module: "EditingModule") -> None:
    """Refuses an anchor that would need a matrix over all pairs of experts.

    Args:
        module: The module, whose model is loaded.

    Raises:
        EditError: For SimIE in a layer of experts.
    """
    experts = [layer for layer in module.layers if module.decoder.experts(layer)]
    if isinstance(module.update_anchor, SimIE) and experts:
        raise EditError(
            f"`anchor: SimIE` sums the keys of all tokens over all pairs of experts, which layers {experts} have too "
            "many of. Edit the shared expert or a dense MLP (`model.sites`), or use `anchor: LyapLock`."
        )


def check_tokens(module: "EditingModule") -> None:
    """Refuses second moments of fewer tokens than the solver needs to invert them, before anything is run.

    Args:
        module: The module, whose model is loaded.

    Raises:
        EditError: See `check_second_moments`.
    """
    settings, decoder = module.moment_settings, module.decoder
    mixed = settings.preserve or settings.share_of_questions(chat_of(module.tokenizer) is not None)
    if settings.source != "text" or settings.tokens is None or mixed:
        return
    for layer in module.layers:
        width = decoder.moment_shape(layer)[-1]
        if settings.tokens < width:
            # So many keys span no more than this.
            best = (torch.arange(width) < settings.tokens).double().diag()
            check_second_moments({module.decoder.shown(layer): best}, module.solver)


def check_history(module: "EditingModule") -> None:
    """Refuses edits that replace others where the keys of these are preserved and not kept.

    Args:
        module: The module, whose fit begins.

    Raises:
        EditError: If there are any.
    """
    if module.previous_keys and replaced_by(module.requests) and module.loop.history is None:
        raise EditError(
            "An edit that replaces an earlier one needs its key, which EditCheckpoint keeps: add that callback, "
            "with `history: true`, or set `data.conflicts` to keep_first."
        )


def check_replaced(module: "EditingModule") -> None:
    """Refuses edits that replace others where no update can be taken back.

    Args:
        module: The module under way.

    Raises:
        EditError: If there are any.
    """
    if not (module.loop.independent or module.update_anchor) or not replaced_by(module.requests):
        return
    what = "`independent_updates`" if module.loop.independent else f"`anchor: {type(module.update_anchor).__name__}`"
    raise EditError(f"With {what} no edit can replace another: set `data.conflicts` to keep_first.")


def check_plain_text(settings: SecondMomentSettings) -> None:
    """Refuses second moments that are not of ordinary text alone, where output gradients are counted with them.

    Args:
        settings: Those of the run.

    Raises:
        EditError: Says what would work.
    """
    if settings.source != "text":
        raise EditError(
            f"CrispEdit needs output gradients on ordinary text, and with `second_moment.source: {settings.source}` no "
            "text is read. Set it to text."
        )
    if settings.question_share or (settings.preserve and settings.preserve_weight):
        name = "question_share" if settings.question_share else "preserve"
        raise EditError(
            f"`second_moment.{name}` adds keys without output gradients to a second moment, and CrispEdit needs "
            "both of the same text. Leave it out, and put such texts into `data.preservation`."
        )
