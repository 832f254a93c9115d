"""A model for the commands that run it without a trainer."""

from typing import Any, Literal

import torch

from lightning_edit.asking.chat import ChatSettings, settle_chat
from lightning_edit.errors import EditError
from lightning_edit.loading.loaded_weights import check_vocabulary
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.loading.weight_forms import Precision
from lightning_edit.models.decoder import Decoder, find_decoder


def decoder_on(
    name: str, device: Literal["auto", "cpu", "gpu"], dtype: Precision, chat: bool | Literal["auto"] = False
) -> tuple[Decoder, Any]:
    """Loads a model and its tokenizer.

    Args:
        name: A folder, a hub name or an embedded model.
        device: Where it is to run; ``auto`` is a GPU where there is one.
        dtype: Precision of the weights; ``auto`` keeps that of the file.
        chat: Whether prompts are asked in a chat, see `settle_chat`.

    Returns:
        The model and its tokenizer.

    Raises:
        EditError: If there is no such model, no GPU, or no chat template.
    """
    there = torch.accelerator.is_available()
    if device == "gpu" and not there:
        raise EditError("`--device gpu`: there is no GPU that torch can use. Give --device cpu.")
    tokenizer, model = load_tokenizer(name), load_model(name, dtype)
    check_vocabulary(model, tokenizer)
    if there and device != "cpu":
        model = model.to(torch.accelerator.current_accelerator())
    return find_decoder(model), settle_chat(tokenizer, chat, ChatSettings())
