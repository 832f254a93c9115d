"""The mean trace of many facts, whose tokens are compared by the part that they play."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.tracing.settings import Kind
from lightning_edit.tracing.trace import Trace

# Of the largest effect, the share that counts as no less.
NEARLY = 0.9
GROUPS = (
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first subsequent token",
    "further tokens",
    "last token",
)


@dataclass(frozen=True)
class MeanEffect:
    """The average indirect effect of one kind of part.

    Args:
        mean: ``(groups, layers)``; not a number for a group that no fact has.
        stderr: ``(groups, layers)`` its standard error over facts; not a number for fewer than two.
    """

    mean: Tensor
    stderr: Tensor


@dataclass(frozen=True)
class AverageTrace:
    """What restoring does on average over facts.

    Args:
        effects: For each kind of part its average indirect effect, by groups of tokens.
        counts: For each of the groups how many facts have it.
        clean: Mean probability of the answer in the clean runs.
        corrupted: The same with noise on the subject.
        facts: How many facts were traced.
    """

    effects: dict[Kind, MeanEffect]
    counts: tuple[int, ...]
    clean: float
    corrupted: float
    facts: int


def groups_of(trace: Trace) -> list[list[int]]:
    """The tokens of a prompt by groups; each token from the subject on is in one of them.

    A subject of one token has only a last one, and so has what follows it where that is one token.

    Args:
        trace: The trace.

    Returns:
        For each of `GROUPS` the indices of its tokens.
    """
    subject, after = list(trace.subject), list(range(trace.subject.stop, len(trace.tokens)))
    return [subject[:-1][:1], subject[1:-1], subject[-1:], after[:-1][:1], after[1:-1], after[-1:]]


def average(traces: Sequence[Trace]) -> AverageTrace:
    """The mean over facts of the mean over each group's tokens.

    Args:
        traces: One or more, of the same kinds and the same model.

    Raises:
        EditError: If there are none.
    """
    if not traces:
        raise EditError("There is no trace to average.")
    groups = [groups_of(trace) for trace in traces]
    effects = {}
    for kind in traces[0].restored:
        means = torch.stack(
            [
                torch.stack([trace.effect(kind)[tokens].mean(0) for tokens in of_trace])
                for trace, of_trace in zip(traces, groups, strict=True)
            ]
        )
        effects[kind] = _mean_effect(means)
    return AverageTrace(
        effects,
        tuple(sum(bool(of_trace[group]) for of_trace in groups) for group in range(len(GROUPS))),
        sum(trace.clean for trace in traces) / len(traces),
        sum(trace.corrupted for trace in traces) / len(traces),
        len(traces),
    )


def _mean_effect(means: Tensor) -> MeanEffect:
    """Of ``(facts, groups, layers)``, where what a fact has no tokens for is not a number."""
    count = (~means.isnan()).sum(0)
    mean = means.nanmean(0)
    variance = (means - mean).square().nansum(0) / (count - 1)
    return MeanEffect(mean, torch.where(count > 1, (variance / count).sqrt(), torch.nan))


def suggested_layers(depth: int, effect: Tensor, editable: Sequence[int]) -> tuple[int, list[int]]:
    """The layers at which edits are likely to succeed: the last before later tokens have read the subject's.

    One layer is the highest of those that bring back nearly most; several are those up to it, five in a model of 28
    layers as MEMIT takes them.

    Args:
        depth: How many layers the model has.
        effect: ``(layers,)`` indirect effects at the subject's last token, of hidden states if possible.
        editable: The layers that can be edited.

    Returns:
        The one layer, and the several.

    Raises:
        EditError: If no layer below the last can be edited.
    """
    # What is written in the last block reaches no later token.
    candidates = [layer for layer in editable if layer < depth - 1]
    if not candidates:
        raise EditError("The model has no layer below its last that can be edited, so none can be suggested.")
    most = max(float(effect[layer]) for layer in candidates)
    best = max(layer for layer in candidates if float(effect[layer]) >= (NEARLY * most if most > 0 else most))
    several = max(1, round(depth * 5 / 28))
    return best, [layer for layer in candidates if best - several < layer <= best]
