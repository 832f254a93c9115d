"""Texts put before a prompt, so that keys and values hold in any context and not only at the start of a text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from lightning_edit.errors import EditError
from lightning_edit.models.batches import without_mask_warning
from lightning_edit.models.hooks import frozen
from lightning_edit.models.tokenization import encode

OPENINGS = ("The", "Therefore", "Because", "I", "You")
GENERATED_TOKENS = 10


@dataclass(frozen=True)
class ContextTemplates:
    """The bare prompt and its prefixed forms.

    Args:
        texts: Each with exactly one ``{}`` where the prompt goes; the first is the bare ``"{}"``.
        average: How keys are averaged over the texts: ``nested`` gives the bare prompt one half and the others together
            the other (MEMIT and EMMET's code), ``flat`` gives all the same (ROME's).

    Raises:
        EditError: If a text has not exactly one ``{}`` or the first is not bare.
    """

    texts: tuple[str, ...] = ("{}",)
    average: Literal["nested", "flat"] = "nested"

    def __post_init__(self) -> None:
        for text in self.texts:
            if text.count("{}") != 1:
                raise EditError(f"A context template must hold exactly one {{}} for the prompt, got {text!r}.")
        if not self.texts or self.texts[0] != "{}":
            raise EditError(f"The first context template must be the bare '{{}}', got {list(self.texts)}.")

    def apply(self, prompt: str) -> list[str]:
        """The prompt, its own ``{}`` kept, in each of the texts."""
        return [text.replace("{}", prompt) for text in self.texts]

    def key_weights(self) -> torch.Tensor:
        """Weight of each text in the mean key, ``(len(texts),)``, adding up to 1."""
        count = len(self.texts)
        if self.average == "flat" or count == 1:
            return torch.full((count,), 1 / count, dtype=torch.float64)
        return torch.tensor([0.5] + [0.5 / (count - 1)] * (count - 1), dtype=torch.float64)


@torch.no_grad()
def generate_templates(
    model: Any,
    tokenizer: Any,
    seed: int,
    average: Literal["nested", "flat"] = "nested",
    openings: Sequence[str] = OPENINGS,
) -> ContextTemplates:
    """Lets the model itself write the prefixes, as MEMIT's published code does, but from a seed.

    Each opening is continued to `GENERATED_TOKENS` tokens (sampled among the five likeliest), then comes ``". {}"``.
    Braces in generated text are removed. The caller's random state is left as it was.

    Args:
        model: The unedited model.
        tokenizer: Its tokenizer.
        seed: Decides the texts; the same seed gives the same texts.
        average: Passed on to `ContextTemplates`.
        openings: The words to continue from.
    """
    device = model.get_input_embeddings().weight.device
    texts = ["{}"]
    devices = [device] if device.type == "cuda" else []
    with frozen(model), without_mask_warning(), torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        for opening in openings:
            ids, _ = encode(tokenizer, opening)
            prompt = torch.tensor([ids], device=device)
            count = max(1, GENERATED_TOKENS - len(ids))
            generated = model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=True,
                top_k=5,
                max_new_tokens=count,
                min_new_tokens=count,
                pad_token_id=tokenizer.pad_token_id or 0,
            )
            text = tokenizer.decode(generated[0], skip_special_tokens=True)
            texts.append(" ".join(text.replace("{", " ").replace("}", " ").split()) + ". {}")
    return ContextTemplates(tuple(texts), average)
