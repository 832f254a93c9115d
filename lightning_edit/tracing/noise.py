"""The noise that makes a model forget who the subject is."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_edit.asking.tokenization import Encoded, encode_subject
from lightning_edit.errors import EditError
from lightning_edit.models.decoder import Decoder
from lightning_edit.storage.fingerprint import fingerprint


@torch.no_grad()
def embedding_std(decoder: Decoder, tokenizer: Any, subjects: Sequence[str]) -> float:
    """The standard deviation over all numbers in the embeddings of all subjects' tokens (ROME, appendix B).

    Args:
        decoder: The model.
        tokenizer: Its fast tokenizer.
        subjects: Whose tokens.

    Raises:
        EditError: If it is 0 or not a number.
    """
    ids: list[int] = []
    for subject in dict.fromkeys(subjects):
        text = encode_subject(tokenizer, "{}", subject)
        ids += text.ids[text.subject_first : text.subject_last + 1]
    embeddings = decoder.model.get_input_embeddings()(torch.tensor([ids], device=decoder.device))
    std = float(embeddings.double().std())
    if not std > 0:
        raise EditError(f"The embeddings of the subjects have a standard deviation of {std}, so no noise can be made.")
    return std


def draw_noise(text: Encoded, samples: int, width: int, scale: float, seed: int) -> Tensor:
    """Gaussian noise for the embeddings of a text's subject, always the same for a text and a seed.

    Args:
        text: The text.
        samples: How often it is drawn.
        width: Size of an embedding.
        scale: Its standard deviation.
        seed: Decides it together with the text.

    Returns:
        ``(samples, subject tokens, width)`` in float64.
    """
    generator = torch.Generator().manual_seed(int(fingerprint(str(seed), text.ids)[:15], 16))
    count = text.subject_last + 1 - text.subject_first
    return scale * torch.randn(samples, count, width, dtype=torch.float64, generator=generator)
