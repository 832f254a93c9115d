"""How edits change which experts ordinary tokens visit; only mixtures of experts have such routes."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_edit.asking.tokenization import encode_prompt
from lightning_edit.collateral.asking import MAX_TOKENS, Asking
from lightning_edit.distributed.process_group import in_shares
from lightning_edit.models.batches import by_length, pad
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.finding.routed_keys import is_experts, routes_of
from lightning_edit.models.hooks import frozen
from lightning_edit.models.out_of_memory import halving


def changed_routes(asking: Asking, prompts: Sequence[str]) -> float | None:
    """The share of routes (an expert that a token visits, of the top k) that are other ones than before the run.

    Counted over all tokens of the prompts and all layers of experts behind the lowest edited one; those up to it see
    what they saw before.

    Args:
        asking: The model, and how it was before.
        prompts: Complete prompts.

    Returns:
        The share, None where there is no such layer or no prompt.
    """
    edited = asking.edited_layers
    layers = [
        layer
        for layer, block in enumerate(asking.decoder.blocks)
        if edited and layer > min(edited) and any(map(is_experts, block.modules()))
    ]
    if not layers or not prompts:
        return None
    with asking.before():
        before = _routes(asking, prompts, layers)
    after = _routes(asking, prompts, layers)
    # Of each token's experts before, which it does not visit any more.
    gone = torch.stack([(~(b[..., None] == a[..., None, :]).any(-1)).sum() for b, a in zip(before, after, strict=True)])
    return float(gone.sum()) / sum(routes.numel() for routes in before)


def _routes(asking: Asking, prompts: Sequence[str], layers: Sequence[int]) -> list[Tensor]:
    """For each prompt the experts that its tokens visit, ``(layers, tokens, k)``."""
    decoder = asking.decoder

    def job(own: Sequence[str]) -> list[Tensor]:
        rows = [encode_prompt(asking.tokenizer, prompt) for prompt in own]
        found: list[Tensor] = [torch.empty(0)] * len(rows)
        with frozen(decoder.model):
            for group in by_length([len(row) for row in rows], MAX_TOKENS):
                for part in halving(partial(_of_group, decoder, rows, layers), group, decoder.model):
                    for i, routes in part:
                        found[i] = routes
        return found

    return [routes for share in in_shares(job, prompts, decoder.model) for routes in share]


@torch.no_grad()
def _of_group(
    decoder: Decoder, rows: Sequence[Sequence[int]], layers: Sequence[int], group: Sequence[int]
) -> list[tuple[int, Tensor]]:
    batch = pad([rows[i] for i in group], decoder.device)
    seen: dict[int, Tensor] = {}

    def note(layer: int, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen[layer] = routes_of(module, args, kwargs).view(*batch.input_ids.shape, -1).cpu()

    with ExitStack() as stack:
        for layer in layers:
            for module in filter(is_experts, decoder.blocks[layer].modules()):
                stack.enter_context(module.register_forward_pre_hook(partial(note, layer), with_kwargs=True))
        decoder.model(**batch.inputs())
    together = torch.stack([seen[layer] for layer in layers], dim=1)
    return [(i, together[place, :, : len(rows[i])]) for place, i in enumerate(group)]
