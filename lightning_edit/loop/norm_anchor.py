"""The norm that values are brought to, measured on the unedited model before the first edit."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from lightning_edit.editor import Editor
from lightning_edit.errors import EditError
from lightning_edit.requests import EditRequest, batches_of
from lightning_edit.values.norm_anchor import mean_norm
from lightning_edit.values.vectors import Values

logger = logging.getLogger(__name__)


def settle_norm(
    editor: Editor,
    requests: Sequence[EditRequest],
    at_once: int,
    find: Callable[[Editor], Callable[[Sequence[EditRequest]], Values]],
) -> None:
    """Measures the norm that values are brought to where the settings say ``auto``; see `mean_norm`.

    So many edits as the settings say count, at even distances among those of the run.

    Args:
        editor: Of the run, before its first update; its settings name the norm afterwards.
        requests: All edits of the run.
        at_once: Edits whose values are found together.
        find: Makes what finds values with an editor.

    Raises:
        EditError: If no value could be found.
    """
    if editor.values.norm_anchor != "auto":
        return
    free = replace(editor, values=replace(editor.values, norm_anchor=None))
    count = min(len(requests), editor.values.norm_anchor_edits)
    sample = [requests[place * len(requests) // count] for place in range(count)]
    with editor.unedited():
        values = Values.join([found.to("cpu") for found in map(find(free), batches_of(sample, at_once))])
        outputs = free.mlp_outputs(sample).cpu()
    if not bool(values.finite.any()):
        raise EditError("`values.norm_anchor: auto`: no edit has a finite loss, so there is no norm to measure.")
    mu, finite = mean_norm(values, outputs), int(values.finite.sum())
    logger.warning("values.norm_anchor: %.4g, the mean norm over %d edits of the unedited model.", mu, finite)
    editor.values = replace(editor.values, norm_anchor=mu)
