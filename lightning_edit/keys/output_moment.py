"""The pass over ordinary text that counts output gradients beside keys: one forward and one backward a batch."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_edit.errors import EditError
from lightning_edit.keys.expert_moment import empty_moment
from lightning_edit.keys.moment_pass import MAX_TOKENS, PartialSums, count, taken
from lightning_edit.keys.second_moment import SecondMoment
from lightning_edit.models.batches import pad
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.finding.places import weight_shape
from lightning_edit.models.finding.sites import by_token
from lightning_edit.models.hooks import logits_at
from lightning_edit.models.output_gradients import MAX_LOGITS, output_watched
from lightning_edit.progress import Report, silent


def compute_both_moments(
    decoder: Decoder,
    rows: Sequence[Sequence[int]],
    layers: Sequence[int],
    report: Report = silent,
    kept: PartialSums | None = None,
) -> dict[int, tuple[Tensor, Tensor]]:
    """C = E[k k^T] of every layer's keys, and B = E[g g^T] of the gradients of what it gives, over all tokens.

    g is the gradient, with respect to what the layer gives at a token, of the negative log-likelihood of the text's
    real tokens, added up over all that follow. B is a mean over the tokens that have a next one: at the last of a text
    the gradient is 0.

    Args:
        decoder: The model.
        rows: Token ids of ordinary text, the same in every process.
        layers: The layers wanted.
        report: Called with the number of tokens done.
        kept: Where an earlier attempt left its sums; None begins anew and keeps none.

    Returns:
        For each layer C ``(d_in, d_in)``, of E experts ``(E, d_in, d_in)``, and B ``(d_out, d_out)``, in float64 on
        `Decoder.waiting_device`; the same in every process.

    Raises:
        EditError: If another process failed, no gradient comes back to a layer, or no text has two tokens.
    """
    layers = sorted(layers)
    if not any(len(row) > 1 for row in rows):
        raise EditError(
            "Output gradients need text in which tokens follow each other, and no text has two tokens. Give longer "
            "texts as `data.preservation` (`texts` in Python), or raise `second_moment.length`."
        )
    keys = {layer: empty_moment(decoder, layer) for layer in layers}
    with decoder.waiting_device:
        gradients = {layer: SecondMoment(weight_shape(decoder, layer)[0], sync_on_compute=False) for layer in layers}
    metrics: dict[str, Any] = {f"{layer}": keys[layer] for layer in layers}
    metrics |= {f"{layer} output": gradients[layer] for layer in layers}
    vocabulary = decoder.model.config.get_text_config().vocab_size
    most = min(decoder.tokens_at_once(MAX_TOKENS), max(1, MAX_LOGITS // vocabulary))
    count(decoder, rows, metrics, partial(_look, decoder, rows, layers), kept, report, most)
    return {layer: (taken(layer, keys[layer]), gradients[layer].taken()) for layer in layers}


def _look(
    decoder: Decoder, rows: Sequence[Sequence[int]], layers: Sequence[int], batch: Sequence[int]
) -> dict[str, Any]:
    padded = pad([rows[i] for i in batch], decoder.device)
    real = padded.real.flatten().nonzero().squeeze(1)
    at, columns = padded.real[:, 1:].nonzero(as_tuple=True)
    tokens, index = padded.input_ids[at, columns + 1], at * padded.input_ids.shape[1] + columns
    with torch.enable_grad(), ExitStack() as stack:
        watched = [stack.enter_context(output_watched(decoder.down_projection(layer), index)) for layer in layers]
        stack.enter_context(logits_at(decoder.head, at, columns))
        logits = decoder.model(**padded.inputs()).logits[0]
        loss = cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), tokens, reduction="sum")
        reached = [hasattr(one, "output") for one in watched]
        if not loss.requires_grad or not all(reached):
            raise _no_gradient(decoder, layers[reached.index(False)] if False in reached else layers[0])
        gradients = torch.autograd.grad(loss, [one.output for one in watched], allow_unused=True)
    seen: dict[str, Any] = {}
    for layer, one, gradient in zip(layers, watched, gradients, strict=True):
        if gradient is None:
            raise _no_gradient(decoder, layer)
        keys = by_token(one.value)
        seen[f"{layer}"] = keys[real.to(keys.device)].to(decoder.device)
        seen[f"{layer} output"] = gradient.to(decoder.device)
    return seen


def _no_gradient(decoder: Decoder, layer: int) -> EditError:
    return EditError(
        f"No gradient comes back to {decoder.names[layer]} when the model reads a text, so the sensitivity of its "
        "output cannot be counted. Edit another layer, or set `solver` to MEMIT, which needs no gradients."
    )
