"""What edits need before they are written: their words, an editor, and second moments."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from torch import Tensor

from lightning_edit.api.earlier import Earlier
from lightning_edit.api.how import How
from lightning_edit.asking.chat import ChatSettings, World, chat_of
from lightning_edit.asking.own_answers import answering, own_answers
from lightning_edit.asking.tokenization import Encoded
from lightning_edit.collateral import Sources
from lightning_edit.distributed.process_group import gathered
from lightning_edit.editor import Editor
from lightning_edit.keys.context_templates import ContextTemplates, generate_templates
from lightning_edit.keys.layer_stats import prepare_second_moments
from lightning_edit.keys.named_prompts import named_groups
from lightning_edit.keys.questions import preserving_questions
from lightning_edit.loop.norm_anchor import settle_norm
from lightning_edit.loop.sourced import warm_up
from lightning_edit.loop.value_finder import silent_finder, value_caches
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report
from lightning_edit.requests import EditRequest
from lightning_edit.solvers.checks import check_second_moments
from lightning_edit.updates.edited_weights import EditedWeights
from lightning_edit.updates.shown import shown
from lightning_edit.values.optimize import encode_texts


def preserved_prompts(
    requests: Sequence[EditRequest], how: How, decoder: Decoder, tokenizer: Any, asking: ChatSettings
) -> Sequence[Sequence[Encoded]]:
    """The prompts that the settings name, whose keys are preserved beside C.

    Args:
        requests: The edits.
        how: The settings.
        decoder: The model.
        tokenizer: A transformers tokenizer or a `ChatTokenizer`.
        asking: How a chat is asked.
    """
    worlds: list[World] = asking.contexts if chat_of(tokenizer) is not None else ["chat"]
    return named_groups(requests, how.second_moment, tokenizer, worlds, decoder.context)


def in_own_words(
    requests: Sequence[EditRequest], decoder: Decoder, tokenizer: Any, asking: ChatSettings, report: Report
) -> Sequence[EditRequest]:
    """The edits with the answers that a chat model gives in its own words, where these are to be learned.

    Args:
        requests: The edits as they are asked.
        decoder: The model.
        tokenizer: A transformers tokenizer or a `ChatTokenizer`.
        asking: How a chat is asked.
        report: Told how far it is.
    """
    if chat_of(tokenizer) is None or asking.answers != "own":
        return requests
    return list(answering(requests, gathered(own_answers(decoder, tokenizer, requests, report))[0]))


def contexts(
    given: ContextTemplates | None, model: Any, tokenizer: Any, how: How, settings: ChatSettings | None
) -> ContextTemplates:
    """The contexts of keys and values: those given, or the model's own, or for a source the bare prompt alone.

    Args:
        given: By the user.
        model: The model.
        tokenizer: A transformers tokenizer or a `ChatTokenizer`.
        how: The settings.
        settings: How a chat is asked, as the user said it.
    """
    templates = given
    if templates is None and how.source is not None:
        templates = ContextTemplates()
    templates = templates or gathered(generate_templates(model, tokenizer, how.seed))[0]
    # Templates of one's own may say themselves where they are to hold.
    if chat_of(tokenizer) is None or (given is not None and settings is None):
        return templates
    return templates.in_worlds(settings or ChatSettings())


def editor_of(
    requests: Sequence[EditRequest],
    how: How,
    decoder: Decoder,
    tokenizer: Any,
    layers: list[int],
    templates: ContextTemplates,
    earlier: Earlier,
) -> Editor:
    """What finds and writes the edits, beside those of earlier calls; its second moments are still to be found.

    Args:
        requests: The edits.
        how: The settings.
        decoder: The model.
        tokenizer: A transformers tokenizer or a `ChatTokenizer`.
        layers: The edited layers.
        templates: The contexts.
        earlier: What earlier calls left in the model.

    Raises:
        EditError: If a text does not fit the model's context, or the edits tell a source too little.
    """
    if how.source is None:
        encode_texts(tokenizer, requests, templates, how.values.kl_prompt, decoder.context)
    else:
        how.source.check(tokenizer, requests, templates, decoder)
    weights = EditedWeights(decoder, layers, earlier.levels)
    editor = Editor(weights, tokenizer, how.solver, layers, templates, how.values, {}, how.distribution)
    editor.source = how.source
    own = [decoder.names[layer] for layer in layers]
    if earlier.unedited.keys() - set(own):
        editor.elsewhere = partial(shown, decoder.model, earlier.unedited, own)
    if how.previous_keys:
        editor.previous_keys = earlier.keys(weights, requests)
    editor.statistics = earlier.statistics(how.source, decoder, layers)
    if how.source is not None and not editor.statistics:
        how.source.check_first(tokenizer, requests, templates)
    return editor


def prepare(
    editor: Editor,
    requests: Sequence[EditRequest],
    how: How,
    texts: Iterable[str] | None,
    moments: dict[int, Tensor] | None,
    preserved: Sequence[Sequence[Encoded]],
    earlier: Earlier,
    report: Report,
) -> None:
    """Gives an editor all that it needs before the first update.

    Args:
        editor: The editor.
        requests: The edits.
        how: The settings.
        texts: Ordinary text.
        moments: Finished second moments.
        preserved: See `preserved_prompts`.
        earlier: What earlier calls left in the model.
        report: Told how far it is.

    Raises:
        EditError: If there is too little text, or no norm to measure.
    """
    if moments is not None:
        editor.moments = {layer: moments[layer].detach().double() for layer in editor.layers}
        name_of = editor.weights.decoder.shown
        check_second_moments({name_of(layer): one for layer, one in editor.moments.items()}, how.solver)
    else:
        decoder, tokenizer = editor.weights.decoder, editor.tokenizer
        asked = preserving_questions(requests, tokenizer, editor.templates, how.second_moment, how.seed)
        wanted = (how.second_moment, how.solver, how.seed, report, asked, preserved)
        # Those of the unedited model, as in a fit: the same for all calls, and found in the cache by the second.
        with shown(decoder.model, earlier.unedited):
            found = prepare_second_moments(decoder, tokenizer, texts, editor.layers, *wanted)
        editor.moments, editor.output_moments = found, found.outputs
    find = partial(silent_finder, caches=value_caches(editor.values))
    settle_norm(editor, requests, how.micro_batch, find)
    with editor.unedited() if how.source is not None else nullcontext():
        warm_up(editor, requests, Sources.shipped(), how.seed, report, how.asking)
