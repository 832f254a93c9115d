"""Which settings of an edit have no effect beside the others: declared once, for all who show or compare settings."""

from typing import TYPE_CHECKING

from lightning_edit.keys.layer_stats import NOT_COUNTED, OF_TEXT
from lightning_edit.loop.sourced import idle_in_search
from lightning_edit.solvers import EMMET

if TYPE_CHECKING:
    from lightning_edit.run.module import EditingModule


def idle_settings(module: "EditingModule") -> frozenset[str]:
    """The dotted names, below ``model``, of settings on which nothing of a run depends because of its others.

    What they are is stated where it is refused, or warned of, that somebody changes them.

    Args:
        module: The module, its settings as they were given.
    """
    source, moments = module.pairs_from, module.moment_settings
    idle = {f"values.{name}" for name in (*module.value_settings.idle, *idle_in_search(source))}
    if source is not None:
        idle |= {"key_average", *(f"source.{name}" for name in source.idle)}
    if moments.source != "text":
        idle |= {f"second_moment.{name}" for name in ("tokens", *OF_TEXT)}
    if not module.solver.needs_second_moment:
        idle |= {f"second_moment.{name}" for name in ("source", "tokens", *NOT_COUNTED, "preserve_weight")}
    if emmet_is_exact(module):
        idle.add("solver.emmet_lambda")
    return frozenset(idle)


def emmet_is_exact(module: "EditingModule") -> bool:
    """Whether the lambda of EMMET is 0, as each update has a single key.

    Args:
        module: The module, its settings as they were given.
    """
    # A source gives an edit several keys, as a rule.
    return isinstance(module.solver, EMMET) and module.loop.queue.size == 1 and module.pairs_from is None
