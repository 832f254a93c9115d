"""Value vectors: what the hidden state at the subject's last token must become for the model to give the new answer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_edit.asking.tokenization import WITH_TEMPLATES, Encoded, check_lengths, encode_subject
from lightning_edit.distributed.process_group import agreed
from lightning_edit.errors import EditError
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.models.batches import by_length, tokens_of_a_pass
from lightning_edit.models.decoder import Decoder, ValueSite
from lightning_edit.models.fast_ops import fast
from lightning_edit.models.hooks import frozen
from lightning_edit.models.out_of_memory import halving
from lightning_edit.progress import Report, silent
from lightning_edit.requests import EditRequest
from lightning_edit.values.batch import ValueBatch, prepare
from lightning_edit.values.held import Held
from lightning_edit.values.optimizers import optimizer_for
from lightning_edit.values.search import Search
from lightning_edit.values.settings import ValueSettings
from lightning_edit.values.vectors import Values

# Of a step, and of the pass over prefixes, which keeps no gradient.
MAX_TOKENS, MAX_PREFIX_TOKENS = 8192, 32768


def encode_texts(
    tokenizer: Any, requests: Sequence[EditRequest], templates: ContextTemplates, kl_prompt: str, context: int | None
) -> list[tuple[int, Encoded]]:
    """The texts of the value loss: for each edit its templates, then its KL prompt.

    Args:
        tokenizer: A fast tokenizer.
        requests: The edits.
        templates: Their contexts.
        kl_prompt: See `ValueSettings`.
        context: The model's context in tokens.

    Returns:
        Pairs of edit number and encoded text.

    Raises:
        EditError: If a text does not fit the context.
    """
    rows: list[tuple[int, Encoded]] = []
    for edit, request in enumerate(requests):
        rows += [(edit, text) for text in templates.encode(tokenizer, request, target=True)]
        rows.append((edit, encode_subject(tokenizer, kl_prompt, request.subject)))
    names = [f"{requests[edit].name} with its longest context template" for edit, _ in rows]
    check_lengths([len(text.ids) for _, text in rows], names, context, WITH_TEMPLATES)
    return rows


def _means(parts: Tensor) -> dict[str, float]:
    nll, kl, decay = parts.nanmean(1).tolist()
    return {"loss": nll + kl + decay, "nll": nll, "kl": kl, "weight_decay": decay}


def optimize_values(
    decoder: Decoder,
    tokenizer: Any,
    requests: Sequence[EditRequest],
    templates: ContextTemplates,
    layer: int,
    settings: ValueSettings,
    report: Report = silent,
) -> Values:
    """Finds the value vectors of a micro-batch of edits, all edits at once.

    For each edit, over delta (d_model), with Adam (ROME, equation 4; MEMIT, equation 16) or another optimizer:

        mean_t NLL(o* | t(p)) + kl_factor KL(P_delta || P_0) + weight_decay |delta| / |z0|^2

    where t runs over the context templates and P is the model's distribution at the subject's last token of the KL
    prompt, with and without delta.

    An edit makes at most ``steps`` passes, and between each two a step of the optimizer. It ends early in a pass whose
    loss is below ``early_stop_loss``, and with ``mpes`` = k also in the k-th pass in which

        argmax_v P(v | t(p), o*_1 .. o*_{i-1}) = o*_i   for every token i of o* and every prefixed template t.

    Whatever ends it, the delta that this pass was made with is taken. That is the most-probable early stopping (MPES)
    of ENCORE (arXiv 2502.01636), there ``prob_cutoff`` = -k with k of 2 for Llama-3, 3 for Llama-2 and 4 for GPT2-XL.
    As in its published code the bare prompt is not asked, and the passes are counted in all, not in a row. Where there
    is no prefixed template, the bare prompt decides.

    Args:
        decoder: The model as it is at the time of the edit.
        tokenizer: Its fast tokenizer.
        requests: The n edits.
        templates: Contexts over which the likelihood is averaged.
        layer: The block where delta is added, the highest edited one.
        settings: See `ValueSettings`.
        report: Called with the number of finished edits and the loss.

    Returns:
        The values; edits whose loss was not finite are named in a warning and marked.

    Raises:
        EditError: If a text does not fit the model's context.
    """
    rows = encode_texts(tokenizer, requests, templates, settings.kl_prompt, decoder.context)
    # The last of an edit's texts is that of the divergence.
    deciding = [*templates.deciding, True] * len(requests)
    values = search_values(decoder, rows, len(templates), layer, settings, report, deciding)
    values.warn_left_out(requests)
    return values


def search_values(
    decoder: Decoder,
    rows: Sequence[tuple[int, Encoded]],
    texts_per_edit: int,
    layer: int,
    settings: ValueSettings,
    report: Report = silent,
    deciding: Sequence[bool] | None = None,
    held: Sequence[Held] | None = None,
) -> Values:
    """Finds the value vectors of texts, each at its ``subject_last``; see `optimize_values`.

    Args:
        decoder: The model.
        rows: The number of each edit, ascending, with one of its texts, the bare one first; one without a target is its
            KL prompt, which need not be there.
        texts_per_edit: How many texts of an edit have a target.
        layer: The block where delta is added.
        settings: See `ValueSettings`.
        report: Called with the number of finished edits and the loss.
        deciding: For each row whether most-probable early stopping looks at it, None for all that have a target.
        held: For each row the values of the same text that were found before, see `prepare`.
    """
    edits = rows[-1][0] + 1
    with frozen(decoder.model), fast(decoder):
        groups, z0 = _prepare(decoder, layer, settings.site, rows, texts_per_edit, deciding, held)
        if not bool(z0.any(1).all()):
            raise EditError(
                f"Layer {layer}: the model's state where values are added is 0, and a value is found relative to its "
                "norm. Edit another layer."
            )
        search = Search.start(z0, settings, decoder.model)
        optimizer = optimizer_for(settings, search.delta, z0)
        if optimizer.keeps_best:
            search.keep_best()
        for step in range(settings.steps):
            before = search.active
            last = step == settings.steps - 1
            parts, gradient, groups = search.losses(groups, last)
            # If one process stopped an edit a pass before another, they would no longer go through the blocks together.
            agreed((parts, gradient, search.missed), decoder.model)
            going = search.settle(parts, last)
            done = float((~going).sum() + going.sum() * (step + 1) / settings.steps)
            report("values (edits)", done, edits, **_means(parts[:, before]))
            if not going.any():
                break
            optimizer.step(gradient, parts.sum(0))
            search.clamp()
            if int(going.sum()) < int(before.sum()):
                groups = search.recordings.fewer(groups, going)
    return search.result()


def _prepare(
    decoder: Decoder,
    layer: int,
    site: ValueSite,
    rows: Sequence[tuple[int, Encoded]],
    texts_per_edit: int,
    deciding: Sequence[bool] | None,
    held: Sequence[Held] | None,
) -> tuple[list[ValueBatch], Tensor]:
    """Prepares the texts in groups of similar length, and z0 ``(n, d_model)`` of the bare prompts.

    A step costs as many tokens as the longest suffix of a group has, for every row of it: in one group, about half of
    them would be padding.
    """
    groups, states = [], [torch.empty(0)] * len(rows)

    def prepared(indices: Sequence[int]) -> tuple[Sequence[int], ValueBatch, Tensor]:
        of_group = [rows[i] for i in indices]
        decides = None if deciding is None else [deciding[i] for i in indices]
        earlier = None if held is None else [held[i] for i in indices]
        return indices, *prepare(decoder, layer, site, of_group, texts_per_edit, decides, earlier)

    for together in groups_of([text for _, text in rows], decoder):
        for indices, group, subjects in halving(prepared, together, decoder.model):
            groups.append(group)
            for i, state in zip(indices, subjects, strict=True):
                states[i] = state
    # Of an edit's texts the first is the bare prompt.
    first = [i for i, (edit, _) in enumerate(rows) if not i or rows[i - 1][0] != edit]
    bare = torch.stack([states[i] for i in first])
    return groups, bare.to(torch.promote_types(bare.dtype, torch.float32))


def groups_of(texts: Sequence[Encoded], decoder: Decoder) -> list[list[int]]:
    """Texts that go through the model together: few enough tokens in each step, and in the one pass over prefixes.

    Args:
        texts: Those of the value loss.
        decoder: The model.

    Returns:
        Indices of the texts of each group.
    """
    # Of the suffixes.
    lengths = [len(text.ids) - text.subject_last if text.target_start < len(text.ids) else 1 for text in texts]
    most, most_prefix = decoder.tokens_at_once(MAX_TOKENS), decoder.tokens_at_once(MAX_PREFIX_TOKENS)
    return [
        [together[i] for i in part]
        for together in by_length(lengths, most, tokens_of_a_pass(decoder.device))
        for part in by_length([len(texts[i].ids) for i in together], most_prefix)
    ]
