"""What cannot be edited, or not like that, refused before any expensive work."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_edit.api.how import How
from lightning_edit.asking.chat import ChatSettings, chat_of
from lightning_edit.asking.questions import as_question
from lightning_edit.asking.tokenization import require_offsets
from lightning_edit.characters import fault_of
from lightning_edit.collateral import Sources
from lightning_edit.distributed.process_group import Together
from lightning_edit.errors import EditError
from lightning_edit.keys.layer_stats import check_counted
from lightning_edit.loading.editable import check_quantized
from lightning_edit.loading.loaded_weights import check_finite, check_vocabulary
from lightning_edit.loading.offloading import keep_in_memory
from lightning_edit.loop.sourced import (
    check_source,
    check_subjects,
    check_sum,
    facts_to_see,
    is_searched,
    warn_of_search,
    without_moments,
)
from lightning_edit.messages import counted, listed, quoted
from lightning_edit.models.beside_weights import refuse_beside
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.finding.probe import check_projections
from lightning_edit.request_texts import ASKS_ITSELF, asks_itself
from lightning_edit.requests import EditRequest
from lightning_edit.values.settings import ValueSettings, check_anchored, check_site, settle_site

logger = logging.getLogger(__name__)


def check_requests(requests: Any) -> None:
    """Refuses what is no list of edits, and warns of edits that are tested by what they should change.

    Args:
        requests: What was given as the edits.

    Raises:
        EditError: Says what was got, and what to write.
    """
    if isinstance(requests, EditRequest):
        raise EditError("`requests` must be a list of EditRequest, got a single one: put it into a list, `[request]`.")
    if isinstance(requests, str | bytes) or not isinstance(requests, Sequence):
        raise EditError(
            f"`requests` must be a list of EditRequest, got {quoted(requests)}. A file of edits is read by a data "
            'module, e.g. `OwnEdits("facts.csv").requests`.'
        )
    for place, one in enumerate(requests):
        if not isinstance(one, EditRequest):
            raise EditError(
                f"`requests`: entry {place} must be an EditRequest, got {quoted(one)}. Write "
                '`EditRequest(subject, prompt, target_new)`, e.g. `EditRequest("Eiffel Tower", "{} is in", "Rome")`.'
            )
    if wrong := [one.rewrite_prompt for one in requests if asks_itself(one)]:
        logger.warning("%s (%s).", counted(len(wrong), *ASKS_ITSELF), listed(map(quoted, wrong), 3))


def checked_texts(texts: Any) -> Iterable[str] | None:
    """Ordinary text, each entry of which is refused where it is no text.

    Args:
        texts: What was given; None for none.

    Raises:
        EditError: If it is a single text or no list, or, as soon as one is read, if an entry is none.
    """
    if isinstance(texts, str):
        raise EditError(f"`texts` must be a list of texts, got a single one, {quoted(texts)}: put it into a list.")
    if texts is not None and not isinstance(texts, Iterable):
        raise EditError(f"`texts` must be a list of texts, got {quoted(texts)}.")
    return None if texts is None else map(_checked_text, texts)


def _checked_text(text: Any) -> str:
    if not isinstance(text, str):
        raise EditError(f"`texts` must be texts, got {quoted(text)} among them.")
    if fault := fault_of(text):
        raise EditError(f"`texts`: the text {fault}.")
    return text


def check_model(model: Any, tokenizer: Any) -> None:
    """Refuses a model with memories on it or through which no gradient goes, and a tokenizer that does not suit it.

    A tokenizer must be fast and the model's own. Memories fit only the weights that they were made for.

    Args:
        model: The model.
        tokenizer: Its tokenizer.

    Raises:
        EditError: Says what to do instead.
    """
    if not isinstance(model, torch.nn.Module):
        raise EditError(
            f"`model` must be a transformers model, got {quoted(type(model).__name__)}: edit(model, tokenizer, "
            "requests), with the model that `AutoModelForCausalLM.from_pretrained` returns."
        )
    if torch.is_inference_mode_enabled() or any(parameter.is_inference() for parameter in model.parameters()):
        raise EditError(
            "Values are found with gradients, which `torch.inference_mode` rules out. Load the model and call edit() "
            "outside of it; `torch.no_grad` does no harm."
        )
    refuse_beside(model)
    require_offsets(tokenizer)
    check_vocabulary(model, tokenizer)


def as_asked(requests: Sequence[EditRequest], tokenizer: Any, settings: ChatSettings) -> Sequence[EditRequest]:
    """The edits as the model is asked for them: in a chat as questions.

    Args:
        requests: The edits.
        tokenizer: A transformers tokenizer or a `ChatTokenizer`.
        settings: How a chat is asked.

    Raises:
        EditError: If there are none.
    """
    if not requests:
        raise EditError("There are no edits to make.")
    if chat_of(tokenizer) is None:
        return requests
    return [as_question(one, settings.complete, settings.in_sentences) for one in requests]


def check_how(
    how: How,
    requests: Sequence[EditRequest],
    moments: Mapping[int, Tensor] | None = None,
    texts: Iterable[str] | None = None,
) -> None:
    """Refuses settings that mean nothing together, or not for these edits.

    Args:
        how: The settings.
        requests: The edits.
        moments: Finished second moments, None where they are to be counted.
        texts: Ordinary text to count them from, if any was given.
    """
    check_anchored(how.values)
    if moments is not None and texts is not None:
        raise EditError("`moments` are finished second moments, so `texts` would not be read. Give one of them.")
    if moments is not None:
        check_counted(how.second_moment, "`moments`, which are finished", "Give `texts` instead")
    elif not how.solver.needs_second_moment:
        check_counted(how.second_moment, *without_moments(how.solver))
    check_subjects(requests, how.source)
    check_sum(how.solver, how.source, "previous_keys" if how.previous_keys else None)
    if how.source is not None:
        if how.source.warmup:
            facts_to_see(how.source, requests, Sources.shipped())
        warn_of_search(how.values, how.source)
        check_source(how.source, how.solver, how.distribution, how.values)


def check_weights(decoder: Decoder, layers: Sequence[int], how: How) -> ValueSettings:
    """Refuses weights that cannot be edited.

    Args:
        decoder: The model, its edited modules plain.
        layers: The edited layers.
        how: The settings.

    Returns:
        How values are optimized where they will be read.
    """
    model = decoder.model
    for module in (model.get_input_embeddings(), *map(decoder.down_projection, layers)):
        keep_in_memory(model, module)
    searched = is_searched(how.source)
    if searched:
        check_site(decoder, layers, how.values.site, how.distribution)
    with Together():
        check_finite(model)
    check_quantized(decoder, layers)
    check_projections(decoder, layers)
    if how.source is not None:
        how.source.check_places(decoder, layers, {})
        how.source.check_solver(how.solver)
    return settle_site(decoder, layers, how.values) if searched else how.values
