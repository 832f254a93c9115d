"""Where a decoder-only transformers model keeps its blocks and down-projections, found by structure alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.pytorch_utils import Conv1D

from lightning_edit.distributed.sharded_weights import whole
from lightning_edit.errors import EditError

# Where a value is read and written: the hidden state that leaves a block, or the output of its down-projection.
Site = Literal["block", "mlp"]


@dataclass(frozen=True)
class Decoder:
    """A decoder-only model seen as what editing needs of it.

    Args:
        model: The transformers model with its language-modeling head.
        blocks: Its decoder blocks, lowest first.
        names: For each block the name of its MLP down-projection among ``model.named_modules()``; empty where there is
            none that can be edited.
        refusals: For each block without one the reason.
    """

    model: Any
    blocks: nn.ModuleList
    names: tuple[str, ...]
    refusals: Mapping[int, str] = field(default_factory=dict)

    def down_projection(self, layer: int) -> nn.Module:
        """The module W of a layer, whose input is the key and whose output is the value."""
        return self.model.get_submodule(self.names[layer])

    def weight(self, layer: int) -> Tensor:
        """A view ``(d_out, d_in)`` of the layer's W, whichever way the module stores it.

        Of a model that is divided between processes it is a copy, and all of them must ask for it at the same time.
        """
        return whole(oriented_weight(self.down_projection(layer)))

    @property
    def head(self) -> nn.Module:
        """The module that turns hidden states into logits."""
        return self.model.get_output_embeddings()

    @property
    def device(self) -> torch.device:
        """Where token ids go in."""
        return self.model.get_input_embeddings().weight.device

    @property
    def context(self) -> int | None:
        """The longest text in tokens, None where the configuration names no limit."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)


def oriented_weight(module: nn.Module) -> Tensor:
    """The weight of a linear map as a view ``(d_out, d_in)``.

    The class decides, never the shape: a square weight looks the same either way round.

    Args:
        module: A Linear, or the Conv1D of GPT-2, which stores its weight transposed.
    """
    weight: Any = module.weight
    return weight.T if isinstance(module, Conv1D) else weight


def _blocks(model: Any) -> tuple[str, nn.ModuleList]:
    config = model.config.get_text_config()
    if getattr(config, "is_encoder_decoder", False):
        raise EditError(f"{type(model).__name__} is an encoder-decoder; only decoder-only models can be edited.")
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and 0 < len(module) == config.num_hidden_layers and attentions(module[0]):
            return name, module
    raise EditError(
        f"No list of {config.num_hidden_layers} decoder blocks was found in {type(model).__name__}. Name the modules "
        "to edit with `down_projection`, e.g. model.layers.{}.mlp.down_proj."
    )


def _named_blocks(model: Any, down_projection: str) -> nn.ModuleList:
    try:
        blocks = model.get_submodule(down_projection.partition(".{}")[0])
    except AttributeError as error:
        raise EditError(f"`down_projection`: {type(model).__name__} has no {down_projection}.") from error
    if "{}" not in down_projection or not isinstance(blocks, nn.ModuleList):
        raise EditError(f"`down_projection` must have {{}} for the number of the block, got {down_projection!r}.")
    return blocks


def attentions(block: nn.Module) -> list[nn.Module]:
    """The modules of a block that mix tokens: attention, and what takes its place."""
    # What takes part in the key/value cache knows the index of its layer: that is how attention is told from the MLP.
    return [module for name, module in block.named_modules() if name and hasattr(module, "layer_idx")]


def output_size(module: nn.Module) -> int | None:
    """The width of what a linear map gives, None for other modules; quantized weights have shapes of their own."""
    if isinstance(module, Conv1D):
        return module.nf
    return module.out_features if isinstance(module, nn.Linear) else None


def _why_not_editable(module: nn.Module) -> str | None:
    """Why nothing can be added to the weight of a linear map, None where it can.

    A subclass may store codes, scales or several weights that together make up the matrix: adding to one of them gives
    another matrix than W + Delta. So may a tensor subclass in an ordinary module. A subclass that holds a weight and a
    bias alone is let through; what it does with them is for `check_projections` to find.
    """
    weight = module._parameters.get("weight")
    held = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    if type(module) not in (nn.Linear, Conv1D) and (not held <= {"weight", "bias"} or list(module.children())):
        return f"it is a {type(module).__name__}, which holds more than a weight and a bias"
    if weight is None:
        return "its weight is computed from other parameters"
    plain = weight.to_local() if isinstance(weight, DTensor) else weight
    if type(plain) not in (nn.Parameter, Tensor):
        return f"its weights are a {type(plain).__name__}"
    if not weight.is_floating_point() or weight.dtype.itemsize < 2:
        return f"its weights are {_dtype_name(weight)}"
    return None


def _dtype_name(weight: Tensor) -> str:
    return str(weight.dtype).removeprefix("torch.")


def _input_size(module: Any) -> int:
    return int(module.nx if isinstance(module, Conv1D) else module.in_features)


def _down_projection(model: Any, block_name: str, block: nn.Module) -> str:
    config = model.config.get_text_config()
    attention = {id(inner) for module in attentions(block) for inner in module.modules()}
    linear = {
        name: module
        for name, module in block.named_modules()
        if output_size(module) is not None and id(module) not in attention
    }
    candidates = _with_a_way_up(linear, config.hidden_size)
    # Experts are kept in one tensor of three dimensions; beside them only a shared expert would be found.
    if not candidates or any(parameter.dim() == 3 for parameter in block.parameters()):
        raise EditError(
            f"No MLP down-projection (a linear map onto the {config.hidden_size} hidden units, outside attention) was "
            f"found in {block_name} of {type(model).__name__}; mixtures of experts and quantized weights cannot be "
            "edited. If there is one, name it with `down_projection`, e.g. model.layers.{}.mlp.down_proj."
        )
    width = getattr(config, "intermediate_size", None)
    as_wide = [name for name in candidates if _input_size(linear[name]) == width]
    if len(as_wide) == 1:
        candidates = as_wide
    if len(candidates) > 1:
        raise EditError(
            f"Several modules in {block_name} of {type(model).__name__} could be the MLP's down-projection: "
            f"{', '.join(candidates)}. Name the one to edit with `down_projection`, with {{}} for the layer's number."
        )
    return f"{block_name}.{candidates[0]}"


def _with_a_way_up(linear: Mapping[str, nn.Module], hidden_size: int) -> list[str]:
    """The ways down to the hidden units beside which, in the same part of the block, there is a way up of their width.

    A gate and the way up may be one map, twice as wide. Where no way down has such a neighbor, all of them are meant.
    """
    last: dict[str, str] = {}
    # With a square MLP the up-projection fits as well; the way down is registered after the way up.
    for name, module in linear.items():
        if output_size(module) == hidden_size:
            last[name.rpartition(".")[0]] = name
    paired = [
        name
        for part, name in last.items()
        if any(
            other != name
            and other.rpartition(".")[0] == part
            and _input_size(module) == hidden_size
            and output_size(module) in (_input_size(linear[name]), 2 * _input_size(linear[name]))
            for other, module in linear.items()
        )
    ]
    return paired or list(last.values())


def _named(model: Any, name: str) -> str:
    module = dict(model.named_modules()).get(name)
    if module is None or output_size(module) is None:
        raise EditError(f"`down_projection`: {name} is not a linear module of {type(model).__name__}.")
    return name


def _editable(model: Any, name: str, uses: Counter[int]) -> str:
    module = model.get_submodule(name)
    reason = _why_not_editable(module)
    if reason is not None:
        raise EditError(
            f"{name} cannot be edited: {reason}. Only a plain linear map with floating-point weights of 16 bits or "
            "more can be edited; load the model without quantization or adapters, e.g. in bfloat16."
        )
    if uses[_place_of(module.weight)] > 1:
        raise EditError(f"{name} cannot be edited: other parts of {type(model).__name__} share its weight.")
    return name


def _place_of(parameter: Any) -> int:
    """Where a parameter's numbers are, which several parameters may share."""
    return parameter.data_ptr() or id(parameter)


def _refuse_adapters(model: Any) -> None:
    # An edit of a weight under an adapter is lost, or written into the adapter, when one of them is saved alone.
    if hasattr(model, "peft_config") or any(hasattr(module, "base_layer") for module in model.modules()):
        raise EditError(
            f"{type(model).__name__} carries a PEFT adapter, which is not part of the weights that would be edited. "
            "Merge it first: `model = model.merge_and_unload()`, or load the model without it."
        )


def find_decoder(model: Any, down_projection: str | None = None) -> Decoder:
    """Finds the blocks and down-projections of a model by its structure.

    A block list has as many entries as the configuration has layers; the down-projection is the linear map of a block,
    outside its attention, onto the hidden size, that has an up-projection beside it. Of several the one that is as wide
    as the configuration says is meant. No name of a model or module is looked at.

    Args:
        model: A decoder-only transformers model with a language-modeling head.
        down_projection: Where structure is not enough, the module's name with ``{}`` for the layer.

    Raises:
        EditError: If the model has no such parts, or none that can be edited in any layer.
    """
    _refuse_adapters(model)
    if down_projection is None:
        block_name, blocks = _blocks(model)
    else:
        blocks = _named_blocks(model, down_projection)
    if model.get_output_embeddings() is None:
        raise EditError(f"{type(model).__name__} has no language-modeling head; load it with AutoModelForCausalLM.")
    uses = Counter(_place_of(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    names, refusals = [""] * len(blocks), dict[int, EditError]()
    for layer, block in enumerate(blocks):
        try:
            if down_projection is None:
                name = _down_projection(model, f"{block_name}.{layer}", block)
            else:
                name = _named(model, down_projection.replace("{}", str(layer)))
            names[layer] = _editable(model, name, uses)
        except EditError as error:
            refusals[layer] = error
    if len(refusals) == len(blocks):
        raise refusals[0]
    return Decoder(model, blocks, tuple(names), {layer: str(error) for layer, error in refusals.items()})


def check_layers(decoder: Decoder, layers: Sequence[int] | int) -> list[int]:
    """The edited layers in ascending order.

    Args:
        decoder: The model.
        layers: Indices of the layers to edit, the lowest block is 0.

    Raises:
        EditError: If there is none, one twice, or one that the model does not have or that cannot be edited.
    """
    count = len(decoder.blocks)
    layers = [layers] if isinstance(layers, int) else layers
    wrong = [layer for layer in layers if not 0 <= layer < count]
    if not layers or wrong or len(set(layers)) < len(layers):
        raise EditError(f"`layers` must be different numbers from 0 to {count - 1} (the model's), got {list(layers)}.")
    for layer in sorted(layers):
        if layer in decoder.refusals:
            raise EditError(f"Layer {layer}: {decoder.refusals[layer]}")
    return sorted(layers)
