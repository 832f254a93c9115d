"""What llama.cpp calls a model's architecture and matrices, by the tables of the package gguf."""

from typing import Any

from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, MODEL_TENSOR, TensorNameMap, get_tensor_name_map
from torch import nn

from lightning_edit.errors import EditError
from lightning_edit.models.finding.sites import experts_of, parameter_name

# Where llama.cpp's name is another one than that of transformers, but for separators.
OTHERWISE = {
    "mistral": "llama",
    "mixtral": "llama",
    "phi": "phi2",
    "cohere": "command-r",
    "gpt_bigcode": "starcoder",
    "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
    "olmo3": "olmo2",
    "qwen2_5_vl": "qwen2vl",
}
# Matrices whose rows or columns llama.cpp's converter puts into another order for some architectures.
REORDERED = frozenset({MODEL_TENSOR.ATTN_Q, MODEL_TENSOR.ATTN_K, MODEL_TENSOR.ATTN_QKV})


class Names:
    """The names of a model's matrices in a GGUF file.

    Args:
        architecture: What ``general.architecture`` says.
        blocks: How many blocks the model has.

    Raises:
        EditError: If the package gguf knows no such architecture.
    """

    def __init__(self, architecture: str, blocks: int) -> None:
        known = {name: arch for arch, name in MODEL_ARCH_NAMES.items()}
        if architecture not in known:
            raise EditError(
                f"The package gguf knows no architecture {architecture!r}. Update it (pip install -U gguf), or name "
                "the one that llama.cpp takes for this model by --gguf_arch."
            )
        self.architecture = architecture
        self._map: TensorNameMap = get_tensor_name_map(MODEL_ARCH(known[architecture]), blocks)

    def find(self, name: str, module: nn.Module) -> tuple[MODEL_TENSOR, str]:
        """The kind and the name of the matrix of a module.

        Args:
            name: The module's name in the model.
            module: The module.

        Raises:
            EditError: If the architecture has no such matrix.
        """
        own = f"{name}.{parameter_name(module)}" if experts_of(module) else name
        # The text model of one that also sees or hears has its names without that part.
        for spelled in (own, own.replace("language_model.", "").replace("text_model.", "")):
            if (found := self._map.get_type_and_name(spelled)) is not None:
                return found[0], f"{found[1]}.weight"
        raise EditError(
            f"llama.cpp's {self.architecture} has no matrix for {own}, which the update edits. If that is another "
            "architecture than the model's, name the right one by --gguf_arch; or export --to lora or --to model."
        )


def architecture_of(config: Any) -> str:
    """What llama.cpp calls the architecture of a transformers model.

    Args:
        config: The model's configuration.

    Raises:
        EditError: If the package gguf has no name like that of transformers.
    """
    kind = str(config.get_text_config().model_type)
    known = {_plain(name): name for name in MODEL_ARCH_NAMES.values()}
    found = OTHERWISE.get(kind) or known.get(_plain(kind))
    if found is None:
        raise EditError(
            f"Which architecture of llama.cpp a {kind} model has is not known here. Name it by --gguf_arch: it is the "
            "`general.architecture` of its GGUF files; or export --to lora and convert that by llama.cpp's "
            "convert_lora_to_gguf.py."
        )
    return found


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").removesuffix("text")
