"""What results of the same edits depend on, so that those of others are not taken for them."""

from dataclasses import asdict
from typing import Any

from lightning_edit.asking.chat import chat_of
from lightning_edit.loop.same_run import RunIdentity
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.survival.measuring import Measures
from lightning_edit.updates.model_update import ModelUpdate


def identity_of(update: ModelUpdate, measures: Measures) -> dict[str, Any]:
    """What every result depends on, by names that a message can list.

    Args:
        update: The edits; each says what weight it was made for.
        measures: What is measured, with which records.
    """
    parts = [
        part
        for place, layer in sorted(update.layers.items())
        for part in (str(place), layer.module, layer.base, layer.factors.left, layer.factors.right)
        if part is not None
    ]
    chat = chat_of(measures.tokenizer) is not None
    return {
        "edits": fingerprint(*parts),
        "records": RunIdentity().records(measures.requests),
        "evaluation": asdict(measures.evaluation),
        "chat": asdict(measures.chat) if chat else None,
        "text of perplexity": fingerprint(*measures.held_out) if measures.held_out else None,
    }
