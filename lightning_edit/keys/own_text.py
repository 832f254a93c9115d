"""Ordinary text where the user gives none: the model's own."""

from typing import Any

import torch

from lightning_edit.models.batches import without_mask_warning
from lightning_edit.models.hooks import frozen
from lightning_edit.progress import Report, silent

LENGTH = 128
ROWS = 64


@torch.no_grad()
def sample_texts(model: Any, tokenizer: Any, tokens: int, seed: int, report: Report = silent) -> list[str]:
    """Texts that the model writes by itself, starting from nothing.

    Text of the kind that the model was trained on preserves better; this is for trying out, and for models whose
    training text is not at hand.

    Args:
        model: The unedited model.
        tokenizer: Its tokenizer.
        tokens: About how many tokens to write.
        seed: Decides the texts; the caller's random state is left as it was.
        report: Called with the number of tokens written.
    """
    device = model.get_input_embeddings().weight.device
    context = getattr(model.config.get_text_config(), "max_position_embeddings", LENGTH) or LENGTH
    length = min(LENGTH, context)
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    texts: list[str] = []
    devices = [device] if device.type == "cuda" else []
    with frozen(model), without_mask_warning(), torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        while len(texts) * (length - 1) < tokens:
            rows = min(ROWS, -(-tokens // (length - 1)) - len(texts))
            ids = torch.full((rows, 1), start or 0, device=device)
            generated = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                max_new_tokens=length - 1,
                min_new_tokens=length - 1,
                pad_token_id=tokenizer.pad_token_id or 0,
            )
            texts += tokenizer.batch_decode(generated[:, 1:], skip_special_tokens=True)
            report("generate text (tokens)", len(texts) * (length - 1), max(tokens, len(texts) * (length - 1)))
    return texts
