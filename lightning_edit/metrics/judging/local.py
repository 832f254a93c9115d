"""A judge on this machine: a transformers model, which replies greedily."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lightning_edit.asking.chat import ChatSettings, settle_chat
from lightning_edit.asking.generation import generate
from lightning_edit.asking.tokenization import encode_prompt
from lightning_edit.errors import EditError
from lightning_edit.loading.fingerprints import fingerprint_model, fingerprint_tokenizer
from lightning_edit.loading.pretrained import load_model, load_tokenizer, loading, read_config
from lightning_edit.loading.skeleton import skeleton_of
from lightning_edit.models.decoder import Decoder, find_decoder
from lightning_edit.progress import Report, silent
from lightning_edit.storage.fingerprint import fingerprint


@dataclass(frozen=True)
class LocalJudge:
    """A model in memory.

    Args:
        decoder: The model.
        tokenizer: Its fast tokenizer, in a chat where it has a template for one.
        name: The fingerprint of both.
    """

    decoder: Decoder
    tokenizer: Any
    name: str

    @staticmethod
    def check(model: str) -> None:
        """Reads its configuration and its tokenizer, which takes no time beside its weights.

        Args:
            model: See `load`.

        Raises:
            EditError: If one of them cannot be read, or it is no causal language model.
        """
        try:
            load_tokenizer(model)
            config = read_config(model)
            with loading("causal language model", model):
                skeleton_of(config)
        except EditError as error:
            raise EditError(f"`evaluation.judge.model`: {str(error).removeprefix('`model`: ')}") from error

    @classmethod
    def load(cls, model: str, device: torch.device) -> "LocalJudge":
        """Loads it.

        Args:
            model: A folder or hub name.
            device: Where to.

        Raises:
            EditError: If there is no such model, or it is none that generates.
        """
        tokenizer = load_tokenizer(model)
        tokenizer = settle_chat(tokenizer, bool(getattr(tokenizer, "chat_template", None)), ChatSettings())
        loaded = load_model(model)
        name = fingerprint(fingerprint_model(loaded), fingerprint_tokenizer(tokenizer))
        return cls(find_decoder(loaded.to(device)), tokenizer, name)

    def __call__(self, texts: Sequence[str], tokens: int, report: Report = silent) -> list[str | None]:
        """The replies to questions, each the text of a user's turn; None where one does not fit the context.

        Args:
            texts: The questions.
            tokens: Most tokens of a reply.
            report: Called with the number of questions done.
        """
        context = self.decoder.context
        fits = [
            text for text in texts if context is None or len(encode_prompt(self.tokenizer, text)) + tokens <= context
        ]
        replies = generate(self.decoder, self.tokenizer, fits, tokens, report=report)
        said = dict(zip(fits, replies, strict=True))
        return [said.get(text) for text in texts]
