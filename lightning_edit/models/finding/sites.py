"""Sites: places of a layer whose output is linear in its keys, with one matrix or one for each expert."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lightning_edit.distributed.sharded_weights import whole
from lightning_edit.models.finding.routed_keys import RoutedKeys, expert_width, is_experts, routed_keys
from lightning_edit.models.hooks import Captured, StopForward, capture_input

# Which of a layer's sites is edited.
SiteKind = Literal["auto", "experts", "shared", "dense"]
# What the keys of a pass are: one row for each token.
SiteKeys = Tensor | RoutedKeys


def parameter_name(module: nn.Module) -> str:
    """The name that a site's weight has in its module.

    Args:
        module: A linear map, or the experts of a layer.
    """
    return "down_proj" if is_experts(module) else "weight"


def oriented_weight(module: nn.Module) -> Tensor:
    """The weight of a site as a view ``(d_out, d_in)``, of experts ``(d_out, experts, d_in)``.

    The class decides, never the shape: a square weight looks the same either way round.

    Args:
        module: A Linear, the Conv1D of GPT-2, which stores its weight transposed, or the experts of a layer.
    """
    return oriented(module, getattr(module, parameter_name(module)))


def oriented(module: Any, tensor: Tensor) -> Tensor:
    """What is of the form of a site's weight as a view ``(d_out, d_in)``; see `oriented_weight`.

    Of a linear map it is its own inverse.

    Args:
        module: The site's module.
        tensor: Of the shape of its weight, such as its gradient.
    """
    if is_experts(module):
        return tensor.permute(2, 0, 1) if module.is_transposed else tensor.permute(1, 0, 2)
    return tensor.T if isinstance(module, Conv1D) else tensor


def output_size(module: nn.Module) -> int | None:
    """The width of what a site gives, None for other modules; quantized weights have shapes of their own.

    Args:
        module: Any module.
    """
    if isinstance(module, Conv1D):
        return module.nf
    if is_experts(module):
        return len(oriented_weight(module))
    return module.out_features if isinstance(module, nn.Linear) else None


def input_size(module: Any) -> int:
    """The width of what a site is given, of experts that of one of them.

    Args:
        module: A site's module.
    """
    if is_experts(module):
        return expert_width(module)
    return int(module.nx if isinstance(module, Conv1D) else module.in_features)


def experts_of(module: Any) -> int:
    """How many experts a site has, 0 for a single matrix.

    Args:
        module: A site's module.
    """
    return len(module.down_proj) if is_experts(module) else 0


@contextmanager
def capture_keys(module: nn.Module, stop: bool = False) -> Iterator[Captured]:
    """Records the keys of a site: what enters a down-projection, or those of its experts.

    Args:
        module: The site's module.
        stop: Whether to end the forward pass there by raising `StopForward`.
    """
    if not is_experts(module):
        with capture_input(module, stop) as captured:
            yield captured
        return
    captured = Captured()

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        captured.value = routed_keys(module, args, kwargs)
        if stop:
            raise StopForward

    with module.register_forward_pre_hook(hook, with_kwargs=True):
        yield captured


def by_token(keys: SiteKeys) -> SiteKeys:
    """Keys with one row for each token of a pass, row after row.

    Args:
        keys: As captured, ``(rows, length, d_in)`` or ``(rows * length, d_in)``.
    """
    return keys if isinstance(keys, RoutedKeys) else keys.reshape(-1, keys.shape[-1])


def stacked(keys: SiteKeys) -> Tensor:
    """Keys ``(tokens, d_in)``, of experts stacked ``(tokens, experts * d_in)``.

    Args:
        keys: One row for each token.
    """
    return keys.stacked() if isinstance(keys, RoutedKeys) else keys


def site_biases(module: Any) -> Tensor | None:
    """What a site adds to W k: ``(1, d_out)``, of E experts ``(E, d_out)``; None where it adds nothing.

    Args:
        module: The site's module.
    """
    if is_experts(module):
        return whole(module.down_proj_bias) if module.has_bias else None
    bias = getattr(module, "bias", None)
    return None if bias is None else whole(bias)[None]


def bias_of(keys: SiteKeys, biases: Tensor) -> Tensor:
    """What biases add for each token ``(tokens, d_out)``: those of experts count by the router's weights.

    Args:
        keys: One row for each token.
        biases: See `site_biases`.
    """
    if not isinstance(keys, RoutedKeys):
        return biases
    gates = keys.gates.new_zeros(len(keys), keys.count + 1)
    gates.scatter_add_(1, keys.experts.clamp(max=keys.count), keys.gates)
    return gates[:, : keys.count].to(biases) @ biases
