"""The mean activation of text that has nothing to do with any edit, from which features stand out."""

from typing import Any

import torch
from torch import Tensor

from lightning_edit.asking.tokenization import encode_prompt
from lightning_edit.models.batches import by_length, pad
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.hooks import by_position, capture_input, frozen, run_until
from lightning_edit.probes.general import preserving_prompts

MAX_TOKENS = 2048


def background(decoder: Decoder, tokenizer: Any, layer: int) -> Tensor:
    """The mean of what enters a down-projection, over all tokens of the shipped general prompts.

    Args:
        decoder: The model.
        tokenizer: Its fast tokenizer.
        layer: The layer.

    Returns:
        ``(d_in,)`` in the model's precision, float32 at least.
    """
    rows = [encode_prompt(tokenizer, prompt.prompt)[: decoder.context] for prompt in preserving_prompts()]
    total, module = torch.zeros(decoder.key_size(layer), dtype=torch.float64), decoder.down_projection(layer)
    with frozen(decoder.model):
        for group in by_length([len(row) for row in rows], decoder.tokens_at_once(MAX_TOKENS)):
            batch = pad([rows[i] for i in group], decoder.device)
            (keys,) = run_until(decoder.model, batch.inputs(), capture_input(module, stop=True))
            states = by_position(keys.value, len(group))
            total += states[batch.real.to(states.device)].double().sum(0).cpu()
    mean = total / sum(map(len, rows))
    return mean.to(states.device, torch.promote_types(states.dtype, torch.float32))
