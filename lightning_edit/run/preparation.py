"""What an editing run checks and prepares before its first edit."""

from itertools import islice
from typing import TYPE_CHECKING, Any

from lightning_edit.distributed.process_group import gathered
from lightning_edit.editor import Editor
from lightning_edit.keys.context_templates import ContextTemplates, generate_templates
from lightning_edit.loop.sourced import facts_to_see, warm_up
from lightning_edit.values.optimize import encode_texts

if TYPE_CHECKING:
    from lightning_edit.run.module import EditingModule

# Edits whose texts are tokenized together to be checked.
AT_ONCE = 1024


def check_warm_up(module: "EditingModule") -> None:
    """Refuses a warm-up for which there are too few facts; none where a finished run is measured again.

    Args:
        module: The editing module under way.

    Raises:
        EditError: See `facts_to_see`.
    """
    source = module.pairs_from
    if source is not None and source.warmup and not module.measured_again:
        facts_to_see(source, module.requests, module.trainer.datamodule.sources())


def check_texts(module: "EditingModule", templates: ContextTemplates) -> None:
    """Refuses edits whose texts do not fit the model's context.

    Args:
        module: The editing module under way.
        templates: The contexts of the edits.

    Raises:
        EditError: See `encode_texts` and `Source.check`.
    """
    if module.pairs_from is not None:
        module.pairs_from.check(module.tokenizer, module.requests, templates, module.decoder)
        return
    kl_prompt, context = module.value_settings.kl_prompt, module.decoder.context
    long = templates.worth_counting(module.tokenizer, module.requests, context, kl_prompt)
    while part := list(islice(long, AT_ONCE)):
        encode_texts(module.tokenizer, part, templates, kl_prompt, context)


def templates_of(module: "EditingModule") -> ContextTemplates:
    """The contexts of a run for which none were given: the model's own, or for a source the bare prompt alone.

    Args:
        module: The editing module under way.
    """
    if module.pairs_from is not None:
        return ContextTemplates()
    with module.timed("contexts"):
        own = generate_templates(module.model, module.tokenizer, module.seed, module.key_average)
        # Unlike machines may write other texts.
        return gathered(own)[0]


def editor_of(module: "EditingModule", templates: ContextTemplates) -> Editor:
    """The editor of a run, without its second moments.

    Args:
        module: The editing module under way.
        templates: The contexts of the edits.

    Raises:
        EditError: If what a source has seen is not of the edited maps, or the first update tells it too little, see
            `Source.check_places` and `Source.check_first`.
    """
    kept = module.loop.kept
    if module.pairs_from is not None and kept.statistics:
        module.pairs_from.check_places(module.decoder, module.layers, kept.statistics)
    elif module.pairs_from is not None:
        module.pairs_from.check_first(module.tokenizer, module.requests[: module.loop.queue.size], templates)
    settings = (templates, module.value_settings, dict[int, Any](), module.distribution, module.post_processing)
    previous_keys = kept.previous_keys if module.previous_keys else None
    given = (module.weights, module.tokenizer, module.solver, module.layers, *settings, previous_keys)
    return Editor(
        *given,
        source=module.pairs_from,
        statistics=kept.statistics,
        anchor=module.update_anchor,
        anchored=kept.anchored,
        finishes_each=module.loop.independent and any(process.of_sum for process in module.post_processing),
    )


def warm_up_run(module: "EditingModule", editor: Editor) -> None:
    """Lets a run's source see facts that are not edited, see `warm_up`.

    Args:
        module: The editing module under way.
        editor: Its editor.
    """
    with module.timed("values"), module.weights.unedited():
        sources, how = module.trainer.datamodule.sources(), (module.seed, module.report, module.chat_settings)
        warm_up(editor, module.requests, sources, *how)
