"""Edits that are in a model for a while."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ParamSpec

from lightning_edit.api.editing import edit
from lightning_edit.api.result import EditResult
from lightning_edit.updates.shown import put_back

Parameters = ParamSpec("Parameters")


def _taking_what(
    function: Callable[Parameters, EditResult],
) -> Callable[[Callable[..., Any]], Callable[Parameters, AbstractContextManager[EditResult]]]:
    """Says to type checkers that a context manager takes what a function takes."""
    return lambda manager: manager


@_taking_what(edit)
@contextmanager
def edited(model: Any, *arguments: Any, **settings: Any) -> Iterator[EditResult]:
    """A model with facts written into it, inside a ``with`` block; at the end it is as it was, bit for bit.

    What is edited inside of the block goes as well, and updates that are taken out there come back, also after an
    exception. The figures of the result may be looked at after the block, too.

    Args:
        model: See `edit`.
        *arguments: The same.
        **settings: The same.

    Raises:
        EditError: See `edit`.

    Example:
        >>> from transformers import AutoModelForCausalLM, AutoTokenizer
        >>> import lightning_edit
        >>> from lightning_edit.tiny import MODEL_PATH
        >>> model = AutoModelForCausalLM.from_pretrained(MODEL_PATH)
        >>> tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
        >>> fact = lightning_edit.EditRequest("Hulbin Larrem", "{} earns a living as a", "roofer")
        >>> with lightning_edit.edited(model, tokenizer, [fact], layers=[0], progress=False) as result:
        ...     result.is_inserted
        True
        >>> result.is_inserted
        False
    """
    with put_back(model):
        yield edit(model, *arguments, **settings)
