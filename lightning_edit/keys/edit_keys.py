"""Keys: what enters the edited down-projection at the subject's last token."""

import logging
from array import array
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_edit.asking.tokenization import Encoded
from lightning_edit.distributed.process_group import in_shares, sharing
from lightning_edit.errors import EditError
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.messages import listed
from lightning_edit.models.decoder import Decoder, ValueSite
from lightning_edit.models.fast_ops import fused_activations
from lightning_edit.models.finding.sites import by_token, capture_keys, stacked
from lightning_edit.models.hooks import Captured, capture_output, frozen, run_until
from lightning_edit.models.out_of_memory import halving
from lightning_edit.models.prefixes.shared_prefixes import Pass, passes
from lightning_edit.requests import EditRequest, fact_of

logger = logging.getLogger(__name__)

MAX_TOKENS = 8192


@dataclass(frozen=True)
class Keys:
    """The keys of n edits at one layer, in float64.

    Args:
        mean: ``(d_in, n)``, averaged over the context templates with their weights; those of E experts are stacked
            ``(E d_in, n)``.
        bare: ``(d_in, n)``, in the bare prompt alone.
    """

    mean: Tensor
    bare: Tensor


def _at_subject(
    decoder: Decoder,
    encoded: Sequence[Encoded],
    capture: Callable[[], AbstractContextManager[Captured]],
) -> Tensor:
    """What a hook sees at the subject's last token of texts, ``(texts, width)`` in float64.

    Only the tokens up to that one are run: what follows cannot be seen from there.
    """
    rows = [text.ids[: text.subject_last + 1] for text in encoded]
    states: dict[int, Tensor] = {}

    def run(rows_of_pass: Pass, chosen: Sequence[int]) -> None:
        part = rows_of_pass.select(chosen)
        (captured,) = run_until(decoder.model, part.inputs(), capture())
        last = part.batch.real.sum(1) - 1
        tokens, length = by_token(captured.value), part.batch.input_ids.shape[1]
        places = torch.arange(len(last), device=last.device) * length + last
        states.update(zip(part.rows, stacked(tokens[places.to(tokens.device)]).double(), strict=True))

    with frozen(decoder.model), fused_activations(decoder.model):
        for part in passes(decoder, rows, [len(row) - 1 for row in rows], decoder.tokens_at_once(MAX_TOKENS)):
            list(halving(partial(run, part), range(len(part.rows)), decoder.model))
    return torch.stack([states[i] for i in range(len(rows))])


def _shared(
    job: Callable[[Sequence[EditRequest]], Tensor], requests: Sequence[EditRequest], decoder: Decoder
) -> Tensor:
    """What a job finds for the edits, one in each column, of which each process looks at its share."""
    if sharing(decoder.model) == 1:
        return job(requests)
    shares = in_shares(lambda own: job(own).cpu(), requests, decoder.model)
    return torch.cat(shares, dim=-1).to(decoder.device)


def compute_keys(
    decoder: Decoder, tokenizer: Any, requests: Sequence[EditRequest], templates: ContextTemplates, layer: int
) -> Keys:
    """The keys of the edits at one layer of the model as it is now.

    Args:
        decoder: The model; layers under this one may already be edited.
        tokenizer: Its fast tokenizer.
        requests: The n edits.
        templates: The contexts to average over (MEMIT, equation 19).
        layer: The layer whose down-projection is to be edited.

    Returns:
        Mean and bare keys, each ``(d_in, n)`` in float64.
    """
    module = decoder.down_projection(layer)

    def find(own: Sequence[EditRequest]) -> Tensor:
        texts = [text for request in own for text in templates.encode(tokenizer, request)]
        states = _at_subject(decoder, texts, lambda: capture_keys(module, stop=True))
        grouped = states.view(len(own), len(templates), -1)
        weights = templates.key_weights().to(grouped.device)
        return torch.stack([torch.einsum("t,nti->in", weights, grouped), grouped[:, 0].T])

    return Keys(*_shared(find, requests, decoder).unbind())


def current_values(
    decoder: Decoder,
    tokenizer: Any,
    requests: Sequence[EditRequest],
    templates: ContextTemplates,
    layer: int,
    site: ValueSite,
) -> Tensor:
    """What the model answers now where z is to stand: at the subject's last token of the bare prompt.

    Args:
        decoder: The model as it is now.
        tokenizer: Its fast tokenizer.
        requests: The n edits.
        templates: The contexts, of which the first counts.
        layer: The highest edited layer.
        site: ``block`` for the hidden state leaving the block, ``mlp`` for the output of its down-projection.

    Returns:
        ``(d_model, n)`` in float64.
    """
    module = decoder.blocks[layer] if site == "block" else decoder.down_projection(layer)

    def find(own: Sequence[EditRequest]) -> Tensor:
        texts = [templates.bare(tokenizer, request) for request in own]
        return _at_subject(decoder, texts, lambda: capture_output(module, stop=True)).T.contiguous()

    return _shared(find, requests, decoder)


def warn_of_shared_keys(updates: Sequence[Sequence[EditRequest]]) -> None:
    """Warns of edits of one update that have one key: nothing but the key tells a weight which answer is asked for.

    A key is made of the tokens up to the subject's last one, so prompts that begin with the same subject share it.

    Args:
        updates: The edits of each update.
    """
    shared: list[EditRequest] = []
    number = 0
    for requests in updates:
        if len(requests) == 1:
            continue
        same = defaultdict[str, dict[tuple[str, str], EditRequest]](dict)
        for position in _with_shared_beginning(requests):
            # A later edit of the same fact replaces the earlier one.
            request = requests[position]
            same[_beginning(request)][fact_of(request)] = request
        for facts in same.values():
            number += len(facts) if len(facts) > 1 else 0
            shared += list(facts.values()) if len(facts) > 1 and not shared else []
    if shared:
        logger.warning(
            "%d of %d edits share their key with another edit of the same update, because their prompts are the same "
            "up to the end of the subject, e.g. %r and %r: one value would have to give all of their answers, so "
            "some will not be learned. Write prompts in which the subject comes last (%r), or set "
            "`edits_per_update: 1`.",
            number,
            sum(map(len, updates)),
            shared[0].rewrite_prompt,
            shared[1].rewrite_prompt,
            "The mother tongue of {} is",
        )


def _beginning(request: EditRequest) -> str:
    return request.prompt.partition("{}")[0] + request.subject


def _with_shared_beginning(requests: Sequence[EditRequest]) -> list[int]:
    """The positions of the edits whose prompts begin as another one's up to the subject, and of hardly any others."""
    codes = array("q", (hash(_beginning(request)) for request in requests))
    seen, again = set[int](), set[int]()
    for code in codes:
        (again if code in seen else seen).add(code)
    return [place for place, code in enumerate(codes) if code in again]


def check_keys(keys: Tensor, requests: Sequence[EditRequest], layer: int) -> None:
    """Refuses edits that have no key.

    Args:
        keys: K ``(d_in, n)``.
        requests: The n edits.
        layer: Where they are to be written.

    Raises:
        EditError: Names them, and says what to change.
    """
    if missing := [request.name for request, key in zip(requests, keys.T, strict=True) if not bool(key.any())]:
        raise EditError(
            f"Layer {layer}: the key of {listed(missing)} is all zeros, so nothing can be written for it there: "
            "what enters the edited map is 0, or the subject's token visits no expert. Edit another layer, or "
            "another site of it (`sites`)."
        )
