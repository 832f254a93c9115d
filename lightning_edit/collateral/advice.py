"""A line of advice where the figures of a run show that something is wrong."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lightning_edit.collateral.levers import Kind, Levers, any_of, less_harm, smaller, write_more
from lightning_edit.collateral.long_context import AFTER, BEFORE, RATIO
from lightning_edit.messages import readable

# From these shares on there is something to say.
FAILED, FORGOTTEN, WORSE, LOST, FALLEN = 0.05, 0.2, 0.05, 0.1, 0.1
# And from this ratio on of perplexities behind long contexts.
RISEN = 1.5
# A mean loss, in nats a token, from which on values were not found; below it they were, and were not written.
NOT_FOUND = 0.1
GROWTH = 2.0
_TEMPLATES = "add `context_templates`, edit an earlier layer, or preserve less"
_SEARCH = "edit an earlier layer, or search for values (`configs/solvers/memit.yaml`)"
OTHER_WORDINGS: Mapping[Kind, str] = {
    **dict.fromkeys(("searched", "differentiated"), _TEMPLATES),
    **dict.fromkeys(("trained", "constrained"), _SEARCH),
    "remembered": "raise `model.radius` (GRACE) or lower `model.threshold` (MEMOIR): more tokens belong to an edit",
}


@dataclass(frozen=True)
class RunFigures:
    """What advice is given from.

    Args:
        edits: Edits that were measured.
        failed: How many of them the edited model does not give the new answer to.
        failed_loss: Their mean loss in nats a token at the end of the value search; None if unknown.
        growth: For each edited layer |W| / |W0|.
        before: Figures of the edits before the run.
        after: The same after it.
        collateral: Figures of collateral, without their prefix.
        kind: How the edits were made: values ``searched`` or ``differentiated``, taken from gradients, weights
            ``trained``, or trained ``constrained`` to what preserves text, facts ``told`` before each prompt, or
            ``remembered`` in a memory beside a layer.
        single_texts: Whether ordinary text was preserved of which each text stood for itself.
        levers: Settings that the method has and that can be turned, with their values.
    """

    edits: int
    failed: int = 0
    failed_loss: float | None = None
    growth: Mapping[str, float] = field(default_factory=dict)
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    collateral: Mapping[str, float] = field(default_factory=dict)
    kind: Kind = "searched"
    single_texts: bool = False
    levers: Levers = field(default_factory=dict)


def advice(run: RunFigures) -> list[str]:
    """What to change in the next run; nothing where all is well.

    Args:
        run: The figures of a run.

    Example:
        >>> advice(RunFigures(edits=50, failed=17, failed_loss=0.35))
        ['17 of 50 edits failed with a mean value loss of 0.35: raise `values.clamp_norm_factor` or `values.steps`.']
    """
    return [line for rule in RULES if (line := rule(run)) is not None]


def _failures(run: RunFigures) -> str | None:
    if not run.edits or run.failed / run.edits < FAILED:
        return None
    failed = f"{run.failed:,} of {run.edits:,} edits failed"
    more = write_more(run.levers)
    if run.kind == "searched":
        return f"{failed}{_of_search(run, more)}."
    ways = {
        "trained": any_of(*more, "raise `trainer.max_epochs` or `model.lr`"),
        "constrained": "raise `model.epochs` or `model.lr`",
        "remembered": "raise `model.steps` or `model.lr`, or choose a lower layer for answers of several tokens",
        "told": "give more of `model.demonstrations`, another `model.preface` or `model.facts`, or edit weights",
        "differentiated": any_of("raise `source.eta`", "edit more layers or `source.maps`", *more),
    }
    return f"{failed}: {ways[run.kind]}."


def _of_search(run: RunFigures, more: list[str]) -> str:
    farther = "raise `values.clamp_norm_factor` or `values.steps`"
    if run.failed_loss is None:
        return f": {farther}, or preserve less"
    loss = f"a mean value loss of {readable(run.failed_loss, 2)}"
    if not run.failed_loss < NOT_FOUND:
        return f" with {loss}: {farther}"
    return f" although their values were found ({loss}): {any_of(*more, 'edit more layers')}"


def _growth(run: RunFigures) -> str | None:
    beyond = {layer: growth for layer, growth in run.growth.items() if not growth <= GROWTH}
    if not beyond:
        return None
    layer = max(beyond, key=lambda layer: beyond[layer])
    return f"The weight of layer {layer} grew {beyond[layer]:.1f} times: {smaller(run.kind, run.levers)}."


def _wordings(run: RunFigures) -> str | None:
    said, other = run.after.get("generated_match"), run.after.get("generated_paraphrase")
    if run.kind not in OTHER_WORDINGS or said is None or other is None or said - other < FORGOTTEN:
        return None
    return (
        f"The new answer is given to {100 * said:.0f} % of the edited prompts, but only to {100 * other:.0f} % of "
        f"other wordings: {OTHER_WORDINGS[run.kind]}."
    )


def _damage(run: RunFigures) -> str | None:
    shares = run.collateral
    harm = []
    if shares.get("general_worse", 0) >= WORSE:
        harm.append(f"{100 * shares['general_worse']:.0f} % of the general answers changed for the worse")
    lost, asked = shares.get("old_object_lost", 0), shares.get("old_object_lost_n", 0)
    # One of a few may be chance.
    if lost >= LOST and (count := round(lost * asked)) > 1:
        harm.append(f"{count} of {asked:.0f} questions whose answer was an old object lost it")
    kept, now = (figures.get("neighborhood_score") for figures in (run.before, run.after))
    if kept is not None and now is not None and kept - now >= FALLEN:
        harm.append(f"neighborhood fell from {100 * kept:.0f} to {100 * now:.0f} %")
    if not harm:
        return None
    return f"{'; '.join(harm)}: {less_harm(run.kind, run.levers)}."


def _behind_long_contexts(run: RunFigures) -> str | None:
    figures = run.collateral
    if RATIO not in figures or figures[RATIO] < RISEN:
        return None
    joined = "try `model.second_moment.join_texts: true`, with which what follows long contexts is preserved, too"
    todo = joined if run.single_texts else less_harm(run.kind, run.levers)
    before, after = readable(figures[BEFORE]), readable(figures[AFTER])
    return f"The perplexity behind long contexts rose from {before} to {after}: {todo}."


RULES: tuple[Callable[[RunFigures], str | None], ...] = (_failures, _growth, _wordings, _damage, _behind_long_contexts)
