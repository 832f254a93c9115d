"""What a run preserves: the second moments of its layers, and the prompts that it names beside them."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lightning_edit.asking.chat import World
from lightning_edit.keys.layer_stats import SecondMomentSettings, prepare_second_moments
from lightning_edit.keys.named_prompts import Prompts, encode_named, prompts_of_worlds, read_prompts, said_of
from lightning_edit.keys.questions import preserving_questions, read_subjects
from lightning_edit.keys.text_moments import Moments
from lightning_edit.storage.fingerprint import fingerprint

if TYPE_CHECKING:
    from lightning_edit.run.module import EditingModule

logger = logging.getLogger(__name__)


def check_files(settings: SecondMomentSettings) -> None:
    """Refuses files of subjects and questions that cannot be read, before anything else is.

    Args:
        settings: Those of the run.

    Raises:
        EditError: See `read_subjects` and `read_prompts`.
    """
    if settings.subjects is not None:
        read_subjects(settings.subjects)
    read_prompts(settings.preserve)


def find_preserved(module: "EditingModule") -> Mapping[World, Prompts]:
    """The prompts that a run names to be preserved, and says so; none where a finished run is measured again.

    Args:
        module: The editing module under way, whose model is loaded.

    Raises:
        EditError: See `prompts_of_worlds` and `encode_named`.
    """
    settings, trainer = module.moment_settings, module.trainer
    measured_again = trainer.state.fn == "test" and trainer.ckpt_path is not None
    if not (settings.preserve and settings.preserve_weight) or measured_again:
        return {}
    worlds: list[World] = list(module.chat_settings.contexts) if module.chat else ["chat"]
    found = prompts_of_worlds(module.requests, settings.preserve, module.tokenizer, worlds)
    encode_named(found, module.tokenizer, module.decoder.context)
    if trainer.is_global_zero:
        logger.warning("%s", said_of(found, settings.preserve_weight))
    return found


def run_second_moments(module: "EditingModule") -> Moments:
    """The second moments of the unedited model, see `prepare_second_moments`.

    Args:
        module: The editing module under way, whose context templates are known.
    """
    assert module.templates is not None
    settings = module.moment_settings
    asked = preserving_questions(module.requests, module.tokenizer, module.templates, settings, module.seed)
    named = encode_named(module.preserved, module.tokenizer, module.decoder.context)
    how = (module.layers, settings, module.solver, module.seed, module.report, asked, named)
    return prepare_second_moments(
        module.decoder, module.tokenizer, module.trainer.datamodule.preservation_texts(), *how
    )


def noted(moments: Moments, of_keys: bool = True) -> dict[str, str]:
    """Fingerprints of the second moments that a run uses, which a run that goes on must have as well.

    Args:
        moments: Those of the run.
        of_keys: Whether those of keys are looked at.
    """
    used, outputs = moments.items() if of_keys else (), moments.outputs.items()
    named = {f"second moment of layer {layer}": fingerprint(moment) for layer, moment in used}
    return named | {f"output moment of layer {layer}": fingerprint(moment) for layer, moment in outputs}
