"""A model's configuration as far as its config.json says it, which is read without importing transformers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_edit.loading.gguf_file import is_gguf
from lightning_edit.loading.model_files import resolve
from lightning_edit.storage.user.json import read_json

FILE = "config.json"
# What the oldest models call these attributes in their files.
FORMER = {"num_hidden_layers": "n_layer", "hidden_size": "n_embd", "intermediate_size": "n_inner"}


class NotStatedError(Exception):
    """The file does not say so by itself: transformers has a default for it, or another name."""


class StatedConfig:
    """Like a transformers configuration, with the attributes that the file states.

    Args:
        stated: The content of config.json.
    """

    def __init__(self, stated: Mapping[str, Any]) -> None:
        self._stated = stated

    def get_text_config(self) -> "StatedConfig":
        """That of the language model, where the model has other parts beside it.

        Raises:
            NotStatedError: If it has parts, and it is not clear which of them it is.
        """
        text = self._stated.get("text_config")
        if isinstance(text, Mapping):
            return StatedConfig(text)
        if any(isinstance(part, Mapping) and "model_type" in part for part in self._stated.values()):
            raise NotStatedError("text_config")
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        for written in (name, FORMER.get(name, name)):
            if self._stated.get(written) is not None:
                return self._stated[written]
        raise NotStatedError(name)


def stated_config(name: str) -> StatedConfig | None:
    """What the config.json of a model states.

    Args:
        name: A folder, a GGUF file, a hub name or an embedded model.

    Returns:
        None where there is no such file on this machine, or it is not one that can be read here: transformers reads
        models from elsewhere, and says best what is wrong.

    Raises:
        EditError: If the folder holds no model or a damaged one, see `resolve`.
    """
    place = Path(resolve(name))
    if is_gguf(place):
        return None
    file = place / FILE if place.is_dir() else _downloaded(name)
    content = None if file is None else read_json(file)
    return StatedConfig(content) if isinstance(content, Mapping) else None


def _downloaded(name: str) -> Path | None:
    """The file of a model of the hub, where it was downloaded before."""
    # Imports what speaks to the network, which a folder does not need.
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, FILE)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None
