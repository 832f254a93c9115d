"""Which module of a block can be edited, found by structure: no name of a model or module is looked at."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.pytorch_utils import Conv1D

from lightning_edit.errors import EditError
from lightning_edit.models.finding.routed_keys import is_experts
from lightning_edit.models.finding.sites import SiteKind, input_size, output_size, parameter_name

NAMED = "name it with `down_projection`, with {} for the layer's number, e.g. model.layers.{}.mlp.down_proj."


def mixers(block: nn.Module) -> list[nn.Module]:
    """The modules of a block that mix tokens: attention, and what takes its place.

    What takes part in the cache knows the index of its layer; that is how it is told from the MLP. An MLP may know it
    as well, for its experts' sake.

    Args:
        block: A decoder block.
    """
    knowing = [
        module
        for name, module in block.named_modules()
        if name and hasattr(module, "layer_idx") and not any(map(is_experts, module.modules()))
    ]
    return [module for module in knowing if not _is_feed_forward(module)]


def _is_feed_forward(module: nn.Module) -> bool:
    """Whether a module is made of up, gate and down alone: two or three linear maps between the same two widths."""
    linear = [inner for inner in module.modules() if output_size(inner) is not None]
    others = [inner for inner in module.modules() if inner._parameters and output_size(inner) is None]
    if others or len(linear) not in (2, 3) or any("head" in name for name in vars(module)):
        return False
    outer, inner_size = input_size(linear[0]), output_size(linear[0])
    return output_size(linear[-1]) == outer and input_size(linear[-1]) == inner_size


def find_site(model: Any, block_name: str, block: nn.Module, kind: SiteKind) -> str:
    """The name of the module of a block that is edited.

    Args:
        model: The model.
        block_name: The block's name in it.
        block: The block.
        kind: Which site is wanted: its ``experts``, the ``shared`` expert beside them, a ``dense`` MLP, or ``auto``:
            the experts where there are any.

    Raises:
        EditError: If there is none, or several between which structure does not decide.
    """
    mixing = {id(inner) for module in mixers(block) for inner in module.modules()}
    experts = [name for name, module in block.named_modules() if is_experts(module) and id(module) not in mixing]
    if kind in ("auto", "experts") and experts:
        return _experts(model, block_name, block, experts)
    if kind == "experts":
        raise EditError(f"{block_name} of {type(model).__name__} has no experts.")
    candidates = dict(_candidates(model, block, mixing, experts, kind))
    if not candidates:
        raise EditError(_none_found(model, block_name, block, mixing, kind))
    return f"{block_name}.{_chosen(model, block_name, candidates)}"


def find_mixer_output(model: Any, block_name: str, block: nn.Module) -> str | None:
    """The output projection of a block that mixes tokens by a recurrence and has no MLP; None where there is none.

    Args:
        model: The model.
        block_name: The block's name in it.
        block: The block.
    """
    if has_unknown_experts(block, {id(part) for module in mixers(block) for part in module.modules()}):
        return None
    names = [name for name, module in block.named_modules() if name and output_size(module) == hidden_size(model)]
    return f"{block_name}.{names[-1]}" if names else None


def _experts(model: Any, block_name: str, block: nn.Module, names: list[str]) -> str:
    if len(names) > 1:
        raise EditError(f"{block_name} of {type(model).__name__} has several groups of experts: {', '.join(names)}.")
    module: Any = block.get_submodule(names[0])
    # Older transformers know no such norm.
    if getattr(module, "has_post_expert_norm", False):
        raise EditError(
            f"{block_name}.{names[0]} cannot be edited: a norm follows each expert, so that what is written there does "
            "not add up. Edit another site of the layer (`sites: shared` or `dense`), where it has one."
        )
    return f"{block_name}.{names[0]}"


def _candidates(
    model: Any, block: nn.Module, mixing: set[int], experts: list[str], kind: SiteKind
) -> Iterator[tuple[str, nn.Module]]:
    """Linear maps of a block onto the hidden units that may be its MLP's way down."""
    size = hidden_size(model)
    beside = {name.rpartition(".")[0] for name in experts}
    linear = {
        name: module
        for name, module in block.named_modules()
        if output_size(module) is not None and not is_experts(module) and id(module) not in mixing
    }
    for name in with_a_way_up(linear, size):
        shared = any(part == "" or name.startswith(f"{part}.") for part in beside)
        if (kind == "shared") == (shared and bool(experts)):
            yield name, linear[name]


def _none_found(model: Any, block_name: str, block: nn.Module, mixing: set[int], kind: SiteKind) -> str:
    kind_of = type(model).__name__
    if kind == "shared":
        return f"{block_name} of {kind_of} has no shared expert."
    if has_unknown_experts(block, mixing):
        return (
            f"{block_name} of {kind_of} has experts in a layout of its own, which cannot be edited. Edit another "
            "layer, or a dense map beside them: " + NAMED
        )
    return (
        f"No MLP down-projection (a linear map onto the {hidden_size(model)} hidden units, outside attention) was "
        f"found in {block_name} of {kind_of}. If there is one, " + NAMED
    )


def has_unknown_experts(block: nn.Module, mixing: set[int]) -> bool:
    """Whether a block keeps matrices in tensors of three dimensions that are no experts of transformers' layout.

    Args:
        block: A decoder block.
        mixing: Ids of the modules that mix tokens.
    """
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return any(
        parameter.dim() == 3
        for module in block.modules()
        if id(module) not in mixing and not isinstance(module, convolutions) and not is_experts(module)
        for parameter in module._parameters.values()
        if parameter is not None
    )


def _chosen(model: Any, block_name: str, candidates: Mapping[str, nn.Module]) -> str:
    names = list(candidates)
    width = getattr(model.config.get_text_config(), "intermediate_size", None)
    as_wide = [name for name in names if input_size(candidates[name]) == width]
    if len(as_wide) == 1:
        return as_wide[0]
    if len(names) > 1:
        raise EditError(
            f"Several modules in {block_name} of {type(model).__name__} could be the MLP's down-projection: "
            f"{', '.join(names)}. Name the one to edit with `down_projection`, with {{}} for the layer's number."
        )
    return names[0]


def hidden_size(model: Any) -> int:
    """The width of the hidden state that blocks pass on.

    Args:
        model: The model.

    Raises:
        EditError: If its configuration does not say so.
    """
    size = getattr(model.config.get_text_config(), "hidden_size", None)
    if not isinstance(size, int):
        raise EditError(f"The configuration of {type(model).__name__} does not say how wide its hidden states are.")
    return size


def with_a_way_up(linear: Mapping[str, nn.Module], size: int) -> list[str]:
    """The ways down to the hidden units beside which, in the same part of the block, there is a way up of their width.

    A gate and the way up may be one map, twice as wide. Where no way down has such a neighbor, all of them are meant.

    Args:
        linear: Linear maps by name, in their order.
        size: How many hidden units there are.
    """
    last: dict[str, str] = {}
    # With a square MLP the up-projection fits as well; the way down is registered after the way up.
    for name, module in linear.items():
        if output_size(module) == size:
            last[name.rpartition(".")[0]] = name
    paired = [
        name
        for part, name in last.items()
        if any(
            other != name
            and other.rpartition(".")[0] == part
            and input_size(module) == size
            and output_size(module) in (input_size(linear[name]), 2 * input_size(linear[name]))
            for other, module in linear.items()
        )
    ]
    return paired or list(last.values())


def named_site(model: Any, name: str) -> str:
    """A module that was named by the user, if it is one.

    Args:
        model: The model.
        name: The module's name.

    Raises:
        EditError: If there is no such module, or it is neither a linear map nor the experts of a layer.
    """
    module = dict(model.named_modules()).get(name)
    if module is None or output_size(module) is None:
        raise EditError(f"`down_projection`: {name} is not a linear module of {type(model).__name__}.")
    return name


def check_editable(model: Any, name: str, uses: Counter[int]) -> str:
    """Refuses a module to whose weight nothing can be added.

    Args:
        model: The model.
        name: The module's name.
        uses: How many parameters are at each place of memory, see `place_of`.

    Returns:
        The name.

    Raises:
        EditError: With the reason.
    """
    module = model.get_submodule(name)
    reason = _why_not_editable(module)
    if reason is not None:
        raise EditError(
            f"{name} cannot be edited: {reason}. Only a plain linear map with floating-point weights of 16 bits or "
            "more can be edited; load the model without quantization or adapters, e.g. in bfloat16."
        )
    if uses[place_of(getattr(module, parameter_name(module)))] > 1:
        raise EditError(f"{name} cannot be edited: other parts of {type(model).__name__} share its weight.")
    return name


def _why_not_editable(module: nn.Module) -> str | None:
    """Why nothing can be added to the weight of a site, None where it can.

    A subclass may store codes, scales or several weights that together make up the matrix: adding to one of them gives
    another matrix than W + Delta. So may a tensor subclass in an ordinary module. A subclass that holds a weight and a
    bias alone is let through; what it does with them is for `check_projections` to find.
    """
    weight: Any = module._parameters.get(parameter_name(module))
    held = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    known = type(module) in (nn.Linear, Conv1D) or is_experts(module)
    if not known and (not held <= {"weight", "bias"} or list(module.children())):
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


def place_of(parameter: Any) -> int:
    """Where a parameter's numbers are, which several parameters may share."""
    return parameter.data_ptr() or id(parameter)


def uses_of(model: Any) -> Counter[int]:
    """How many parameters of a model are at each place of memory."""
    return Counter(place_of(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
