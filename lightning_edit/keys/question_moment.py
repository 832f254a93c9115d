"""The second moment of keys where a model is used: at questions, behind what all of them begin with."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from lightning_edit.distributed.process_group import own_share, summed
from lightning_edit.keys.second_moment import SecondMoment
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.fast_ops import fused_activations
from lightning_edit.models.hooks import by_position, capture_input, frozen, run_until
from lightning_edit.models.out_of_memory import halving
from lightning_edit.models.shared_prefixes import Pass, passes
from lightning_edit.progress import Report, silent

MAX_TOKENS, MAX_TOKENS_CPU = 8192, 2048


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with, of which each row keeps one at least behind them.

    Args:
        rows: Token ids.
    """
    first, last = min(map(tuple, rows)), max(map(tuple, rows))
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return min(length, min(map(len, rows)) - 1)


def question_moments(
    decoder: Decoder,
    rows: Sequence[Sequence[int]],
    subjects: Sequence[int | None],
    layers: Sequence[int],
    report: Report = silent,
) -> dict[int, tuple[Tensor, Tensor | None]]:
    """E[k k^T] over the tokens of questions, and over the last tokens of their subjects.

    What all questions begin with, such as a system prompt, is run once and not counted: it would be the larger part of
    each question and says nothing of what is asked.

    Args:
        decoder: The model.
        rows: Token ids of the questions, the same in every process.
        subjects: For each question the index of its subject's last token; None where there is none.
        layers: The layers wanted.
        report: Called with the number of tokens done by this process.

    Returns:
        For each layer both moments ``(d_in, d_in)`` in float64, on the model's device; None for the second where no
        question has a subject.
    """
    begin = common_prefix(rows)
    moments: dict[int, tuple[SecondMoment, SecondMoment]] = {}
    for layer in sorted(layers):
        d_in = decoder.weight(layer).shape[1]
        with decoder.device:
            moments[layer] = SecondMoment(d_in, sync_on_compute=False), SecondMoment(d_in, sync_on_compute=False)
    own = own_share(list(range(len(rows))), decoder.model)
    count = partial(_count, decoder, moments, begin, [subjects[i] for i in own])
    most, done = MAX_TOKENS_CPU if decoder.device.type == "cpu" else MAX_TOKENS, 0
    with frozen(decoder.model), fused_activations(decoder.model):
        mine = [rows[i] for i in own]
        for part in passes(decoder, mine, [begin] * len(mine), most):
            list(halving(partial(count, part), range(len(part.rows)), decoder.model))
            done += sum(len(mine[i]) for i in part.rows)
            report("second moments of questions (tokens)", done, sum(map(len, mine)))
    states = [state for pair in moments.values() for m in pair for state in m.metric_state.values()]
    summed(states, decoder.model)
    return {layer: _computed(*pair) for layer, pair in moments.items()}


def _computed(tokens: SecondMoment, subjects: SecondMoment) -> tuple[Tensor, Tensor | None]:
    return tokens.compute(), subjects.compute() if int(subjects.tokens) else None


def _count(
    decoder: Decoder,
    moments: Mapping[int, tuple[SecondMoment, SecondMoment]],
    begin: int,
    subjects: Sequence[int | None],
    whole: Pass,
    chosen: Sequence[int],
) -> None:
    part, layers = whole.select(chosen), sorted(moments)
    captures = [capture_input(decoder.down_projection(layer), stop=layer == layers[-1]) for layer in layers]
    keys = [by_position(c.value, len(chosen)) for c in run_until(decoder.model, part.inputs(), *captures)]
    columns = torch.arange(part.batch.input_ids.shape[1], device=part.heads.device) + part.heads[:, None]
    counted = part.batch.real.bool() & (columns >= begin)
    wanted = torch.tensor([-1 if (at := subjects[row]) is None else at for row in part.rows], device=columns.device)
    last = columns == wanted[:, None]
    for layer, each in zip(layers, keys, strict=True):
        for moment, mask in zip(moments[layer], (counted, last), strict=True):
            if mask.any():
                moment.update(each[mask.to(each.device)].to(decoder.device))
