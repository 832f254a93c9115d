"""The second moment of keys where a model is used: at questions, behind what all of them begin with."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_edit.asking.tokenization import Encoded
from lightning_edit.distributed.process_group import Together, first_of_machine, gathered, own_share, sharing, summed
from lightning_edit.keys.expert_moment import Moment, empty_moment
from lightning_edit.loading.fingerprints import describe_numerics, fingerprint_model
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.fast_ops import fused_activations
from lightning_edit.models.finding.places import keys_captured
from lightning_edit.models.finding.sites import by_token
from lightning_edit.models.hooks import frozen, run_until
from lightning_edit.models.out_of_memory import halving
from lightning_edit.models.prefixes.shared_prefixes import Pass, common_prefix, passes
from lightning_edit.progress import Report, silent
from lightning_edit.storage.cache import Cache
from lightning_edit.storage.fingerprint import fingerprint

MAX_TOKENS, MAX_TOKENS_CPU = 8192, 2048
KIND, TOKENS, SUBJECTS = "question-moment", "tokens", "subjects"
# To be raised whenever `question_moments` comes to give other numbers for the same input.
METHOD = "question moment 1"


def mixed_with_questions(
    decoder: Decoder,
    moments: Mapping[int, Tensor],
    groups: Sequence[Sequence[Encoded]],
    share: float,
    subject_share: float,
    cache: Cache | None = None,
    report: Report = silent,
) -> dict[int, Tensor]:
    """Second moments of text mixed with those of questions, so that C holds the keys at which the model is used.

    With groups g of questions, whose moments are E_g over all tokens behind what they have in common and S_g over the
    last tokens of their subjects alone,

        C = (1 - share) C_text + share mean_g ((1 - subject_share) E_g + subject_share S_g)

    Args:
        decoder: The model.
        moments: For each layer C_text ``(d_in, d_in)``.
        groups: Questions that begin alike, such as those of one chat format.
        share: From 0, which leaves C_text as it is, to 1.
        subject_share: From 0 to 1; 0 is taken for a group without subjects.
        cache: Where what was computed is kept.
        report: Called with the number of tokens done.

    Returns:
        For each layer ``(d_in, d_in)`` in float64.
    """
    if not share:
        return dict(moments)
    of_text = {layer: (1 - share) * moment for layer, moment in moments.items()}
    return with_questions(decoder, of_text, groups, share, subject_share, cache, report)


def with_questions(
    decoder: Decoder,
    moments: Mapping[int, Tensor],
    groups: Sequence[Sequence[Encoded]],
    weight: float,
    subject_share: float = 0.0,
    cache: Cache | None = None,
    report: Report = silent,
) -> dict[int, Tensor]:
    """Second moments with those of questions added: C + weight mean_g ((1 - subject_share) E_g + subject_share S_g).

    Args:
        decoder: The model.
        moments: For each layer C ``(d_in, d_in)``.
        groups: See `mixed_with_questions`.
        weight: What the questions count, where C counts 1.
        subject_share: See `mixed_with_questions`.
        cache: Where what was computed is kept.
        report: Called with the number of tokens done.

    Returns:
        For each layer ``(d_in, d_in)`` in float64.
    """
    added = dict(moments)
    for group in groups:
        for layer, (tokens, subjects) in _cached(decoder, group, sorted(moments), cache, report).items():
            of_group = tokens if subjects is None else torch.lerp(tokens, subjects, subject_share)
            added[layer] = added[layer] + weight / len(groups) * of_group.to(added[layer].device)
    return added


def _cached(
    decoder: Decoder, group: Sequence[Encoded], layers: Sequence[int], cache: Cache | None, report: Report
) -> dict[int, tuple[Tensor, Tensor | None]]:
    rows, lasts = (
        [text.ids for text in group],
        [text.subject_last if text.subject_last >= 0 else None for text in group],
    )
    if cache is None:
        return question_moments(decoder, rows, lasts, layers, report)
    parts = {
        "weights": fingerprint_model(decoder.model),
        "questions": fingerprint(*rows, [-1 if last is None else last for last in lasts]),
        "numerics": describe_numerics(decoder.model),
        "method": METHOD,
    }
    names = {layer: fingerprint(*parts.values(), decoder.names[layer]) for layer in layers}
    read = {layer: cache.read(KIND, names[layer]) for layer in layers}
    # Other processes may see another disk.
    if all(all(there) for there in gathered([kept is not None for kept in read.values()])):
        return {layer: (kept[TOKENS], kept.get(SUBJECTS)) for layer, kept in read.items() if kept is not None}
    found = question_moments(decoder, rows, lasts, layers, report)
    described = {"model": getattr(decoder.model, "name_or_path", ""), "tokens": sum(map(len, rows)), "parts": parts}
    for layer, (tokens, subjects) in found.items() if first_of_machine() else ():
        kept = {TOKENS: tokens} if subjects is None else {TOKENS: tokens, SUBJECTS: subjects}
        cache.write(KIND, names[layer], kept, {**described, "module": decoder.names[layer]})
    return found


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
        For each layer both moments ``(d_in, d_in)`` (of E experts ``(E, d_in, d_in)``) in float64, on
        `Decoder.waiting_device`; None for the second where no question has a subject.
    """
    begin = common_prefix(rows)
    moments = {layer: (empty_moment(decoder, layer), empty_moment(decoder, layer)) for layer in sorted(layers)}
    own = own_share(list(range(len(rows))), decoder.model)
    count = partial(_count, decoder, moments, begin, [subjects[i] for i in own])
    most, done = MAX_TOKENS_CPU if decoder.device.type == "cpu" else MAX_TOKENS, 0
    together = Together() if sharing(decoder.model) > 1 else nullcontext()
    with together, frozen(decoder.model), fused_activations(decoder.model):
        mine = [rows[i] for i in own]
        for part in passes(decoder, mine, [begin] * len(mine), decoder.tokens_at_once(most)):
            list(halving(partial(count, part), range(len(part.rows)), decoder.model))
            done += sum(len(mine[i]) for i in part.rows)
            report("second moments of questions (tokens)", done, sum(map(len, mine)))
    states = [state for pair in moments.values() for m in pair for state in m.metric_state.values()]
    summed(states, decoder.model)
    return {layer: _computed(*pair) for layer, pair in moments.items()}


def _computed(tokens: Moment, subjects: Moment) -> tuple[Tensor, Tensor | None]:
    return tokens.taken(), subjects.taken() if int(subjects.tokens) else None


def _count(
    decoder: Decoder,
    moments: Mapping[int, tuple[Moment, Moment]],
    begin: int,
    subjects: Sequence[int | None],
    whole: Pass,
    chosen: Sequence[int],
) -> None:
    part, layers = whole.select(chosen), sorted(moments)
    captured = run_until(decoder.model, part.inputs(), *keys_captured(decoder, layers))
    keys = [by_token(one.value) for one in captured[: len(layers)]]
    columns = torch.arange(part.batch.input_ids.shape[1], device=part.heads.device) + part.heads[:, None]
    counted = part.batch.real.bool() & (columns >= begin)
    wanted = torch.tensor([-1 if (at := subjects[row]) is None else at for row in part.rows], device=columns.device)
    last = columns == wanted[:, None]
    for layer, each in zip(layers, keys, strict=True):
        for moment, mask in zip(moments[layer], (counted, last), strict=True):
            update: Any = moment.update
            if mask.any():
                update(each[mask.flatten().to(each.device)].to(decoder.device))
