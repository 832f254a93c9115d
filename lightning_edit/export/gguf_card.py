"""What the cards of GGUF files say: how llama.cpp loads them, and what rounding has left of the update."""

from collections.abc import Sequence
from dataclasses import replace

from lightning_edit.export.adapter import Adapter
from lightning_edit.export.card import CardFacts
from lightning_edit.export.gguf_lora import rank_of
from lightning_edit.export.gguf_types import Rounded
from lightning_edit.messages import counted, readable

MODEL, ADAPTER = "model.gguf", "adapter.gguf"
USE_MODEL = f'llama-cli -m {MODEL} -p "..."\nllama-server -m {MODEL}'
USE_ADAPTER = 'llama-cli -m base.gguf --lora adapter.gguf -p "..."\nllama-server -m base.gguf --lora adapter.gguf'
UNDO_MODEL = "Take the base model's file: it is not changed."
UNDO_ADAPTER = (
    "Leave the adapter off: the base model is not changed. A running `llama-server` takes it off by `POST "
    '/lora-adapters` with `[{"id": 0, "scale": 0}]`.'
)


def model_card(facts: CardFacts, rounded: Sequence[Rounded]) -> CardFacts:
    """The facts of a card with what it says of an edited GGUF file.

    Args:
        facts: What the update itself knows.
        rounded: The edited matrices.
    """
    kinds = ", ".join(sorted({one.kind.name for one in rounded}))
    worst = max(one.error for one in rounded)
    form = (
        f"Form: a GGUF file, that of the base model with {counted(len(rounded), 'edited matrix', 'edited matrices')} "
        f"in {kinds}; all else is copied byte for byte. Rounding changes the edited matrices by "
        f"{readable(worst, 2)} of what the update does (relative Frobenius norm, the worst matrix)."
    )
    return replace(facts, form=[form], use=USE_MODEL, language="bash", undo=UNDO_MODEL, library="gguf", tags=("gguf",))


def adapter_card(facts: CardFacts, adapter: Adapter, architecture: str) -> CardFacts:
    """The facts of a card with what it says of an adapter for llama.cpp.

    Args:
        facts: What the update itself knows.
        adapter: The adapter.
        architecture: What llama.cpp calls the base model's.
    """
    worst = max(ranks.error for ranks in adapter.ranks.values())
    left = "it holds the whole update" if adapter.exact else f"{readable(100 * worst, 2)} % of the update are left out"
    form = (
        f"Form: a LoRA adapter for llama.cpp (architecture {architecture}) of "
        f"{counted(len(adapter.ranks), 'matrix', 'matrices')}, rank {rank_of(adapter)}; {left}."
    )
    tags = ("lora", "gguf")
    return replace(facts, form=[form], use=USE_ADAPTER, language="bash", undo=UNDO_ADAPTER, library="gguf", tags=tags)
