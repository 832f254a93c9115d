"""What a run preserves: the second moments of its layers, and the prompts that it names beside them."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from lightning.pytorch.utilities import rank_zero_warn

from lightning_edit.asking.chat import World
from lightning_edit.keys.layer_stats import SecondMomentSettings, prepare_second_moments
from lightning_edit.keys.named_prompts import Prompts, encode_named, prompts_of_worlds, read_prompts, said_of
from lightning_edit.keys.questions import preserving_questions, read_subjects
from lightning_edit.keys.text_moments import Moments
from lightning_edit.storage.fingerprint import Digest, fingerprint

if TYPE_CHECKING:
    from lightning_edit.run.module import EditingModule
    from lightning_edit.run.updating_module import UpdatingModule

logger = logging.getLogger(__name__)

TEXT = "text of the second moments"


class ReadTexts:
    """Ordinary text that is read once, and the hash of what was read.

    Args:
        texts: As the data module gives them; None for the model's own, which has no name: a checkpoint tells of model
            and seed, and another device may write other words.
    """

    def __init__(self, texts: Iterable[str] | None) -> None:
        self._texts = texts
        self._digest = Digest()

    def __iter__(self) -> Iterator[str]:
        for text in self._texts or ():
            self._digest.add(text)
            yield text

    @property
    def or_none(self) -> "ReadTexts | None":
        """These texts; None for the model's own."""
        return None if self._texts is None else self

    def fingerprint(self, *more: str | Iterable[int]) -> dict[str, str]:
        """From what second moments were counted, for a checkpoint.

        Args:
            *more: What was counted beside these texts.
        """
        return {TEXT: fingerprint(str(self._digest), *more)}


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
    """The prompts that a run names to be preserved, and says so.

    Also where a finished run is measured again: what was preserved must not judge it.

    Args:
        module: The editing module under way, whose model is loaded.

    Raises:
        EditError: See `prompts_of_worlds` and `encode_named`.
    """
    settings = module.moment_settings
    if not (settings.preserve and settings.preserve_weight):
        return {}
    worlds: list[World] = list(module.chat_settings.contexts) if module.chat else ["chat"]
    found = prompts_of_worlds(module.requests, settings.preserve, module.tokenizer, worlds)
    encode_named(found, module.tokenizer, module.decoder.context)
    if module.trainer.is_global_zero:
        logger.warning("%s", said_of(found, settings.preserve_weight))
    return found


def run_second_moments(module: "EditingModule") -> tuple[Moments, dict[str, str]]:
    """The second moments of the unedited model, see `prepare_second_moments`, and the fingerprint of their texts.

    Args:
        module: The editing module under way, whose context templates are known.
    """
    assert module.templates is not None
    settings = module.moment_settings
    asked = preserving_questions(module.requests, module.tokenizer, module.templates, settings, module.seed)
    named = encode_named(module.preserved, module.tokenizer, module.decoder.context)
    how = (module.layers, settings, module.solver, module.seed, module.report, asked, named)
    texts = ReadTexts(module.trainer.datamodule.preservation_texts())
    moments = prepare_second_moments(module.decoder, module.tokenizer, texts.or_none, *how)
    return moments, texts.fingerprint(*(one.ids for group in (*asked, *named) for one in group))


def note(module: "UpdatingModule", fingerprints: Mapping[str, str], moments: Moments, of_keys: bool = True) -> None:
    """Notes what a run depends on, and warns where a run that goes on has other second moments in the last bits.

    Args:
        module: The module under way.
        fingerprints: Hashes, by name, of what may not be another.
        moments: Those of the run.
        of_keys: Whether those of keys are looked at.

    Raises:
        EditError: See `RunIdentity.note`.
    """
    used, outputs = moments.items() if of_keys else (), moments.outputs.items()
    counted = {f"second moment of layer {layer}": fingerprint(moment) for layer, moment in used}
    counted |= {f"output moment of layer {layer}": fingerprint(moment) for layer, moment in outputs}
    if told := module.identity.note(fingerprints, counted):
        rank_zero_warn(told)
