"""Where a decoder-only transformers model keeps its blocks and what an edit writes to, found by structure alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import index
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_edit.distributed.sharded_weights import whole
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.models.finding.find_sites import (
    check_editable,
    find_mixer_output,
    find_site,
    hidden_size,
    mixers,
    named_site,
    uses_of,
)
from lightning_edit.models.finding.sites import (
    SiteKind,
    experts_of,
    input_size,
    oriented_weight,
    output_size,
    parameter_name,
)
from lightning_edit.models.prefixes.resumption import Resumption

# Where a value is read and written: the hidden state that leaves a block, or the output of its down-projection.
ValueSite = Literal["block", "mlp"]
# How much an edit may take beside the model itself.
Memory = Literal["normal", "low"]
# Most tokens of a pass where little memory is to be used: a processor is as fast with them as with more.
FEW_TOKENS, FEW_TOKENS_CPU = 2048, 128


@dataclass(frozen=True)
class Decoder:
    """A decoder-only model seen as what editing needs of it.

    Args:
        model: The transformers model with its language-modeling head.
        blocks: Its decoder blocks, lowest first.
        names: For each block the name of its MLP down-projection, or of its experts, among ``model.named_modules()``;
            empty where there is none that can be edited. For each of `maps` those of all blocks follow, see `places`.
        refusals: For each block without one the reason.
        memory: With ``low``, what is not at work waits on the CPU, and passes are small.
        maps: The names that other linear maps, which are places as well, have in a block.
    """

    model: Any
    blocks: nn.ModuleList
    names: tuple[str, ...]
    refusals: Mapping[int, str] = field(default_factory=dict)
    memory: Memory = "normal"
    maps: tuple[str, ...] = ()

    def block_of(self, layer: int) -> int:
        """The number of the block in which a place is."""
        return layer % len(self.blocks)

    def shown(self, layer: int) -> str:
        """How people call a place: ``11``, and beside the down-projection e.g. ``11.mlp.gate_proj``."""
        behind, block = divmod(layer, len(self.blocks))
        return f"{block}.{self.maps[behind - 1]}" if behind else str(block)

    def label(self, layer: int) -> str:
        """How figures call a place: ``layer_11``, or e.g. ``layer_11.mlp.gate_proj``."""
        return f"layer_{self.shown(layer)}"

    def down_projection(self, layer: int) -> nn.Module:
        """The module W of a layer, whose input is the key and whose output is the value; or its experts together."""
        return self.model.get_submodule(self.names[layer])

    def weight(self, layer: int) -> Tensor:
        """The layer's W ``(d_out, d_in)``, whichever way the module stores it; a view where it has one matrix.

        Of E experts it is a copy of all W_j side by side ``(d_out, E d_in)``. Of a model that is divided between
        processes it is a copy, too, and all of them must ask for it at the same time.
        """
        return whole(oriented_weight(self.down_projection(layer))).flatten(1)

    def parameter(self, layer: int) -> nn.Parameter:
        """The parameter that holds the layer's W."""
        module = self.down_projection(layer)
        return module.get_parameter(parameter_name(module))

    def parameter_name(self, layer: int) -> str:
        """The name of that parameter in the model."""
        return f"{self.names[layer]}.{parameter_name(self.down_projection(layer))}"

    def experts(self, layer: int) -> int:
        """E, how many experts are edited in the layer; 0 for a single matrix."""
        return experts_of(self.down_projection(layer))

    def key_size(self, layer: int) -> int:
        """The length of the layer's keys: d_in, of E experts E d_in."""
        return input_size(self.down_projection(layer)) * max(self.experts(layer), 1)

    def moment_shape(self, layer: int) -> tuple[int, ...]:
        """The shape of the layer's second moment: ``(d_in, d_in)``, of E experts ``(E, d_in, d_in)``."""
        size, experts = input_size(self.down_projection(layer)), self.experts(layer)
        return (experts, size, size) if experts else (size, size)

    @cached_property
    def resumption(self) -> Resumption:
        """How a pass of the model may be resumed."""
        return Resumption(self.model, self.blocks, self.device)

    @property
    def head(self) -> nn.Module:
        """The module that turns hidden states into logits."""
        return self.model.get_output_embeddings()

    @property
    def device(self) -> torch.device:
        """Where token ids go in."""
        return self.model.get_input_embeddings().weight.device

    @property
    def waiting_device(self) -> torch.device:
        """Where second moments are counted, and wait until a layer is solved."""
        return torch.device("cpu") if self.memory == "low" else self.device

    def tokens_at_once(self, usual: int) -> int:
        """Most tokens of a pass, padding included.

        Args:
            usual: Where memory is no concern.
        """
        few = FEW_TOKENS_CPU if self.device.type == "cpu" else FEW_TOKENS
        return min(usual, few) if self.memory == "low" else usual

    @property
    def context(self) -> int | None:
        """The longest text in tokens, None where the configuration names no limit."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)


def _blocks(model: Any) -> tuple[str, nn.ModuleList]:
    """The list of decoder blocks: as many as the configuration has layers, in the part that reads text."""
    config = model.config.get_text_config()
    if getattr(config, "is_encoder_decoder", False) or getattr(model.config, "is_encoder_decoder", False):
        raise EditError(f"{type(model).__name__} is an encoder-decoder; only decoder-only models can be edited.")
    count, text = getattr(config, "num_hidden_layers", None), {id(part) for part in _text_part(model).modules()}
    found = [
        (id(module) in text, len(module) == count, bool(mixers(module[0])), name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and _is_block(module[0], hidden_size(model))
    ]
    # Vision towers have blocks as well. Some layers of a model may know their index and others not.
    best = max((quality for *quality, _, _ in found), default=[False, False, False])
    lists = [(name, module) for *quality, name, module in found if quality == best]
    # Lists of experts or heads lie within blocks, and have more entries the deeper they lie.
    outer = [(name, module) for name, module in lists if not any(name.startswith(f"{other}.") for other, _ in lists)]
    if (best[1] and outer) or len(outer) == 1:
        return outer[0]
    raise EditError(
        f"No list of {count} decoder blocks was found in {type(model).__name__}. Name the modules to edit with "
        "`down_projection`, e.g. model.layers.{}.mlp.down_proj."
    )


def _text_part(model: Any) -> nn.Module:
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    return decoder if isinstance(decoder, nn.Module) else model


def _is_block(module: nn.Module, hidden: int) -> bool:
    return any(output_size(part) == hidden for part in module.modules() if part is not module)


def _named_blocks(model: Any, down_projection: str) -> nn.ModuleList:
    try:
        blocks = model.get_submodule(down_projection.partition(".{}")[0])
    except AttributeError as error:
        raise EditError(f"`down_projection`: {type(model).__name__} has no {down_projection}.") from error
    if "{}" not in down_projection or not isinstance(blocks, nn.ModuleList):
        raise EditError(f"`down_projection` must have {{}} for the number of the block, got {down_projection!r}.")
    return blocks


def _refuse_adapters(model: Any) -> None:
    # An edit of a weight under an adapter is lost, or written into the adapter, when one of them is saved alone.
    if hasattr(model, "peft_config") or any(hasattr(module, "base_layer") for module in model.modules()):
        raise EditError(
            f"{type(model).__name__} carries a PEFT adapter, which is not part of the weights that would be edited. "
            "Merge it first: `model = model.merge_and_unload()`, or load the model without it."
        )


def find_decoder(model: Any, down_projection: str | None = None, sites: SiteKind = "auto") -> Decoder:
    """Finds the blocks of a model, and the site of each, by its structure.

    A block list has as many entries as the configuration has layers; the site is the linear map of a block, outside its
    attention, onto the hidden size, that has an up-projection beside it. Of several the one that is as wide as the
    configuration says is meant. In a mixture of experts it is all experts of the layer together. No name of a model or
    module is looked at.

    Args:
        model: A decoder-only transformers model with a language-modeling head.
        down_projection: Where structure is not enough, the module's name with ``{}`` for the layer.
        sites: Which site of a layer is edited, see `find_site`.

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
    uses = uses_of(model)
    names, refusals = [""] * len(blocks), dict[int, EditError]()
    for layer, block in enumerate(blocks):
        try:
            if down_projection is None:
                name = find_site(model, f"{block_name}.{layer}", block, sites)
            else:
                name = named_site(model, down_projection.replace("{}", str(layer)))
            names[layer] = check_editable(model, name, uses)
        except EditError as error:
            refusals[layer] = error
    if len(refusals) == len(blocks) and down_projection is None and sites in ("auto", "dense"):
        # A model of recurrent layers alone has no MLP; what a layer adds leaves it through its output projection.
        found = {layer: find_mixer_output(model, f"{block_name}.{layer}", block) for layer, block in enumerate(blocks)}
        if all(found.values()):
            names, refusals = [check_editable(model, str(name), uses) for name in found.values()], {}
    if len(refusals) == len(blocks):
        raise refusals[0]
    return Decoder(model, blocks, tuple(names), {layer: str(error) for layer, error in refusals.items()})


def check_layers(decoder: Decoder, layers: Sequence[int] | int) -> list[int]:
    """The edited layers in ascending order.

    Args:
        decoder: The model.
        layers: Indices of the layers to edit, the lowest block is 0.

    Raises:
        EditError: If one is no whole number, there is none, one twice, or one that the model does not have or that
            cannot be edited.
    """
    count = len(decoder.blocks)
    layers = check_numbers(count, layers)
    for layer in sorted(layers):
        if layer in decoder.refusals:
            others = [str(other) for other in range(count) if other not in decoder.refusals]
            raise EditError(f"Layer {layer}: {decoder.refusals[layer]} Layers that have one: {', '.join(others)}.")
    return sorted(layers)


def check_numbers(count: int, layers: Sequence[int] | int) -> list[int]:
    """The layers as they are given, where a model of some depth has them all.

    Args:
        count: The number of its blocks.
        layers: See `check_layers`.

    Raises:
        EditError: If one is no whole number, there is none, one twice, or one that the model does not have.
    """
    layers = _whole_numbers(layers)
    wrong = [layer for layer in layers if not 0 <= layer < count]
    if not layers or wrong or len(set(layers)) < len(layers):
        raise EditError(f"`layers` must be different numbers from 0 to {count - 1} (the model's), got {list(layers)}.")
    return layers


def _whole_numbers(layers: Any) -> list[int]:
    """Layers as Python's numbers; those of arrays are numbers too, truth values are not."""
    try:
        listed = [layers] if isinstance(layers, int) else list(layers)
        if not any(isinstance(layer, bool) for layer in listed):
            return [index(layer) for layer in listed]
    except TypeError:
        pass
    raise EditError(f"`layers` must be auto or whole numbers of blocks such as [5], got {quoted(layers)}.")
