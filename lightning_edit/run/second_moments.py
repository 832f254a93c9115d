"""The second moments of a run: of its preservation text, and of the questions it is asked."""

from typing import TYPE_CHECKING

from torch import Tensor

from lightning_edit.asking.tokenization import Encoded
from lightning_edit.keys.layer_stats import prepare_second_moments
from lightning_edit.keys.questions import read_subjects, run_questions

if TYPE_CHECKING:
    from lightning_edit.run.module import EditingModule


def run_second_moments(module: "EditingModule") -> dict[int, Tensor]:
    """C of each edited layer of the unedited model, see `prepare_second_moments`.

    Args:
        module: The editing module under way, whose context templates are known.

    Returns:
        For each layer ``(d_in, d_in)`` in float64.
    """
    texts = module.trainer.datamodule.preservation_texts()
    settings, layers = (module.moment_settings, module.solver, module.seed), module.layers
    asked = _questions(module)
    return prepare_second_moments(module.decoder, module.tokenizer, texts, layers, *settings, module.report, asked)


def _questions(module: "EditingModule") -> list[list[Encoded]]:
    """What is asked of the model to preserve how it answers."""
    settings = module.moment_settings
    if module.templates is None or not settings.share_of_questions(bool(module.chat)):
        return []
    worlds, subjects = module.templates.worlds, read_subjects(settings.subjects)
    return run_questions(module.requests, module.tokenizer, worlds, settings.questions, module.seed, subjects)
