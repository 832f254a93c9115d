"""What traces say, as tables for the terminal and as JSON."""

import math
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from torch import Tensor

from lightning_edit.messages import cells
from lightning_edit.models.decoder import Decoder
from lightning_edit.tracing.average import GROUPS, AverageTrace, suggested_layers
from lightning_edit.tracing.settings import Kind, TracingSettings
from lightning_edit.tracing.trace import Trace

# In the order in which they say where to edit: it is a hidden state that an edit sets.
TELLING: tuple[Kind, ...] = ("state", "mlp", "attention")


def subject_end(trace: Trace | AverageTrace, kind: Kind) -> Tensor:
    """The indirect effect ``(layers,)`` of restoring the subject's last token.

    Args:
        trace: The trace, or the average of several.
        kind: A kind of part that was traced.
    """
    if isinstance(trace, AverageTrace):
        return trace.effects[kind].mean[GROUPS.index("last subject token")]
    return trace.effect(kind)[trace.subject[-1]]


def suggestion(trace: Trace | AverageTrace, decoder: Decoder) -> dict[str, Any]:
    """The layers that a trace suggests to edit.

    Args:
        trace: The trace, or the average of several.
        decoder: The model.

    Returns:
        ``layer``, one alone; ``layers``, several that share an edit; and ``from``, the kind of part that says so.

    Raises:
        EditError: If no layer below the last can be edited.
    """
    traced = trace.effects if isinstance(trace, AverageTrace) else trace.restored
    kind = next(kind for kind in TELLING if kind in traced)
    depth = len(decoder.blocks)
    editable = [layer for layer in range(depth) if layer not in decoder.refusals]
    layer, layers = suggested_layers(depth, subject_end(trace, kind), editable)
    return {"layer": layer, "layers": layers, "from": kind}


def table_of(trace: Trace | AverageTrace) -> Table:
    """A row for each token or group of tokens: for each kind of part the layer that brings back most, and how much.

    Args:
        trace: The trace, or the average of several.
    """
    if isinstance(trace, AverageTrace):
        rows, unit = [name for name, count in zip(GROUPS, trace.counts, strict=True) if count], "effect"
        present = [group for group, count in enumerate(trace.counts) if count]
        maps = {kind: effect.mean[present] for kind, effect in trace.effects.items()}
    else:
        places = range(trace.subject.start, len(trace.tokens))
        rows, unit = [f"{trace.tokens[i].strip()}{'*' if i in trace.subject else ''}" for i in places], "p"
        maps = {kind: restored[trace.subject.start :] for kind, restored in trace.restored.items()}
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    drawn.add_column("restored at", overflow="fold")
    for kind in maps:
        drawn.add_column(f"{kind}:\nbest layer", justify="right")
        drawn.add_column(f"\n{unit}", justify="right")
    for row, name in enumerate(cells(rows)):
        best = [(values[row].argmax().item(), values[row].max().item()) for values in maps.values()]
        drawn.add_row(name, *[text for layer, value in best for text in (str(layer), f"{value:.3f}")])
    return drawn


def described(
    trace: Trace | AverageTrace, settings: TracingSettings, std: float, suggested: dict[str, Any]
) -> dict[str, Any]:
    """All figures of a trace, as JSON holds them.

    Args:
        trace: The trace, or the average of several.
        settings: What it was made with.
        std: Standard deviation of the embeddings of subjects.
        suggested: See `suggestion`.
    """
    common = {"clean": trace.clean, "corrupted": trace.corrupted, "suggested": suggested}
    how = {"samples": settings.samples, "noise": settings.noise, "seed": settings.seed, "embedding_std": std}
    if isinstance(trace, AverageTrace):
        depth = next(iter(trace.effects.values())).mean.shape[1]
        what = {"facts": trace.facts, "groups": list(GROUPS), "counts": list(trace.counts)}
        effects = {
            kind: {"mean": _listed(effect.mean), "stderr": _listed(effect.stderr)}
            for kind, effect in trace.effects.items()
        }
        return {**what, **common, "window": settings.width(depth), **how, "indirect_effect": effects}
    depth = next(iter(trace.restored.values())).shape[1]
    what = {"prompt": trace.fact.text, "subject": trace.fact.subject, "answer": trace.answer}
    tokens = {"tokens": list(trace.tokens), "subject_tokens": list(trace.subject)}
    probabilities = {kind: _listed(values) for kind, values in trace.restored.items()}
    return {**what, **tokens, **common, "window": settings.width(depth), **how, "probability": probabilities}


def _listed(values: Tensor) -> list[list[float | None]]:
    """A matrix as JSON holds it, which has no word for what is not a number."""
    return [[None if math.isnan(value) else value for value in row] for row in values.tolist()]


def layer_words(layers: Sequence[int]) -> str:
    """Consecutive layers as the command line takes them: ``5``, or ``4-8``.

    Args:
        layers: In ascending order.
    """
    consecutive = len(layers) > 1 and list(layers) == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]}-{layers[-1]}" if consecutive else ",".join(map(str, layers))
