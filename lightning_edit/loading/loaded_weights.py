"""Whether a model's files held all of its weights and nothing else, and whether these are numbers."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_edit.errors import EditError
from lightning_edit.loading.offloading import in_memory
from lightning_edit.messages import listed
from lightning_edit.storage.tensor_parts import plain_parts

# Constants that older versions of transformers kept beside the weights.
LEFTOVERS = re.compile(r"(^|\.)(masked_bias|inv_freq)$")
# Up to the number of a block.
BLOCK = re.compile(r"^.*?\.\d+(?=\.)")
NAMED = 3


def check_loaded(model: Any, loaded: Mapping[str, Any], name: str) -> None:
    """Refuses a model some of whose weights were drawn at random, or whose files hold weights that it has no use for.

    What belongs to another part, e.g. the vision tower of a model that is loaded for its text alone, is no concern.

    Args:
        model: The model.
        loaded: What transformers says of loading it (``output_loading_info``).
        name: What it was loaded from.

    Raises:
        EditError: With the names of these weights.
    """
    misshapen = sorted(loaded["mismatched_keys"])
    if misshapen:
        weight, there, wanted = misshapen[0]
        raise EditError(
            f"`model`: the files of {name} hold {weight} of shape {tuple(there)}, where its config.json asks for "
            f"{tuple(wanted)}. {len(misshapen)} weights have another shape: one of the two is another model's."
        )
    kind, missing = type(model).__name__, sorted(loaded["missing_keys"])
    if missing:
        raise EditError(
            f"`model`: the files of {name} lack {listed(missing, NAMED)}, which {kind} needs and which would be drawn "
            "at random. The files are incomplete, or its config.json is another model's."
        )
    unexpected = sorted(_belonging(model, loaded["unexpected_keys"]))
    if unexpected:
        raise EditError(
            f"`model`: the files of {name} hold {listed(unexpected, NAMED)}, for which {kind} has no place, so it "
            "would compute something else than they were trained for. Its config.json is another model's, or does not "
            "say how the weights are quantized."
        )


def _belonging(model: Any, unexpected: Iterable[str]) -> list[str]:
    """Those unexpected weights that would be part of the decoder: of a module it has, or of one more block."""
    modules = {name: module for name, module in model.named_modules() if name}
    buffers = {name for name, _ in model.named_buffers()}
    forms = {_form(name) for name in model.state_dict()}
    own, blocks = [], defaultdict[str, list[str]](list)
    for key in unexpected:
        # A file of the model without its head has no prefix.
        for name in (key, f"{model.base_model_prefix}.{key}"):
            block, parent = BLOCK.match(name), name.rpartition(".")[0]
            if name in buffers or LEFTOVERS.search(name) or _is_mask(name, modules.get(parent)):
                break
            if parent in modules or (block and block[0] in modules):
                own.append(key)
                break
            if block and _form(block[0]) in {_form(module) for module in modules}:
                blocks[block[0]].append(name)
    for names in blocks.values():
        # A layer that predicts further tokens has weights that no block has, and is not run.
        if all(_form(name) in forms for name in names):
            own += names
    return own


def _is_mask(name: str, module: nn.Module | None) -> bool:
    """Whether this is the causal mask that attentions once kept as their ``bias``: they have no weight of their own."""
    return name.endswith(".bias") and module is not None and not module._parameters


def _form(name: str) -> str:
    return re.sub(r"(^|(?<=\.))\d+(?=\.|$)", "{}", name)


def check_vocabulary(model: Any, tokenizer: Any) -> None:
    """Refuses a tokenizer whose tokens the model has no embedding for.

    Tokens that were added to it and that no text holds by accident, e.g. of images, may be beyond the embeddings.

    Args:
        model: The model.
        tokenizer: A fast tokenizer.

    Raises:
        EditError: If an ordinary token or the one that begins or ends texts is beyond the embeddings, or what ends
            texts is no token.
    """
    ending = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if any(type(token) is not int for token in (ending if isinstance(ending, list) else [ending]) if token is not None):
        raise EditError(
            f"`eos_token_id` in the model's generation_config.json must be a token's number or a list of them, got "
            f"{ending!r}."
        )
    rows = model.get_input_embeddings().weight.shape[0]
    ends = {tokenizer.bos_token_id, tokenizer.eos_token_id} - {None}
    ordinary = set(tokenizer.get_vocab().values()) - set(tokenizer.added_tokens_decoder)
    beyond = [token for token in ordinary | ends if token >= rows]
    if beyond:
        raise EditError(
            f"The tokenizer has tokens up to number {max(beyond)}, and {type(model).__name__} has {rows} embeddings. "
            "They belong to different models, or tokens were added without `model.resize_token_embeddings`."
        )


@torch.no_grad()
def check_finite(model: Any) -> None:
    """Refuses a model with a weight that is not a finite number.

    Args:
        model: The model. Of one that is divided between processes, each looks at its own part.

    Raises:
        EditError: With the name of the first such weight.
    """
    for name, parameter in model.named_parameters():
        if not all(_is_finite(part) for _, part in plain_parts(in_memory(model, name, parameter.detach()))):
            raise EditError(
                f"The weight {name} of {type(model).__name__} has entries that are NaN or infinite, so nothing can be "
                "computed with this model. Its files are damaged, or its precision is too low for its weights."
            )


def _is_finite(tensor: Tensor) -> bool:
    values = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    # Codes of quantized weights are always finite.
    if not values.is_floating_point() or values.dtype.itemsize < 2 or not values.numel():
        return True
    # In one pass and without a mask as large as the weight; both are NaN if any entry is.
    return bool(torch.stack(values.aminmax()).isfinite().all())
