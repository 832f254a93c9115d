"""Keys of a layer of experts: for each token the few experts that it visits, and what enters their down-projections."""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


@dataclass(frozen=True)
class RoutedKeys:
    """The keys of tokens at a layer of E experts, each of which a token visits or not.

    With router weights g_j and inner activations h_j the layer gives sum_j W_j k_j, k_j = g_j h_j, which is linear in
    the stacked key ``(E d_in,)``: k_j at the experts that the token visits, zeros elsewhere.

    Args:
        experts: ``(tokens, visits)`` number of each expert visited; E or more where there is none.
        gates: ``(tokens, visits)`` g.
        keys: ``(tokens, visits, d_in)`` k.
        count: E.
    """

    experts: Tensor
    gates: Tensor
    keys: Tensor
    count: int

    def __len__(self) -> int:
        return len(self.experts)

    @property
    def device(self) -> torch.device:
        """Where the keys are."""
        return self.keys.device

    def __getitem__(self, tokens: Any) -> "RoutedKeys":
        """Those of some of the tokens, chosen as the rows of a tensor are."""
        return RoutedKeys(self.experts[tokens], self.gates[tokens], self.keys[tokens], self.count)

    def to(self, device: torch.device) -> "RoutedKeys":
        """The same on another device."""
        return RoutedKeys(self.experts.to(device), self.gates.to(device), self.keys.to(device), self.count)

    def stacked(self) -> Tensor:
        """The stacked keys ``(tokens, E d_in)``."""
        tokens, _, d_in = self.keys.shape
        # One more place, for visits to no expert.
        stacked = self.keys.new_zeros(tokens, self.count + 1, d_in)
        index = self.experts.clamp(max=self.count)[..., None].expand_as(self.keys)
        return stacked.scatter_add_(1, index, self.keys)[:, : self.count].flatten(1)

    def of_expert(self, expert: int) -> Tensor:
        """The keys ``(visits, d_in)`` of one expert."""
        return self.keys[self.experts == expert]


@torch.no_grad()
def routed_keys(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> RoutedKeys:
    """The keys of a call of a module of experts, computed as transformers' own implementations compute them.

    Args:
        module: Experts of transformers (``use_experts_implementation``): what is special about a model, its gate,
            biases and layout, is in the module's own attributes.
        args: Arguments of the call: hidden states ``(tokens, d_model)``, the experts ``(tokens, visits)`` of each
            token, and their router weights.
        kwargs: The same by name.
    """
    hidden, experts, gates = _arguments(module, args, kwargs)
    hidden = hidden.reshape(-1, hidden.shape[-1])
    flat, count = experts.reshape(-1), len(module.down_proj)
    source = torch.arange(len(hidden), device=flat.device).repeat_interleave(experts.shape[-1])
    precision = torch.promote_types(hidden.dtype, torch.float32)
    keys = torch.zeros(len(flat), expert_width(module), dtype=precision, device=hidden.device)
    for expert in flat.unique().tolist():
        if expert < count:
            chosen = flat == expert
            keys[chosen] = _inner(module, expert, hidden[source[chosen]]).to(precision)
    gates = gates.to(precision).reshape(experts.shape)
    keys = keys.view(*experts.shape, -1) * gates[..., None]
    return RoutedKeys(experts, gates, keys, count)


def _arguments(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
    return list(bound.arguments.values())[1:4]


def routes_of(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The experts ``(tokens, k)`` that each token visits.

    Args:
        module: See `routed_keys`.
        args: Arguments of a call of it.
        kwargs: The same by name.
    """
    return _arguments(module, args, kwargs)[1]


def expert_width(module: Any) -> int:
    """The length d_in of one expert's keys.

    Args:
        module: See `routed_keys`.
    """
    return int(module.down_proj.shape[1 if module.is_transposed else 2])


def _inner(module: Any, expert: int, hidden: Tensor) -> Tensor:
    """What enters one expert's down-projection, before it is multiplied by the router's weight."""
    name = "gate_up_proj" if module.has_gate else "up_proj"
    weight = getattr(module, name)[expert]
    bias = getattr(module, f"{name}_bias")[expert] if module.has_bias else None
    up = linear(hidden, weight.T if module.is_transposed else weight, bias)
    return module._apply_gate(up) if module.has_gate else module.act_fn(up)


def is_experts(module: nn.Module) -> bool:
    """Whether a module holds the matrices of all experts of a layer, in the layout that `routed_keys` knows.

    Args:
        module: Any module.
    """
    down = module._parameters.get("down_proj")
    # What transformers' decorator of experts leaves on each of them.
    described = all(hasattr(module, name) for name in ("is_transposed", "has_gate", "has_bias", "_apply_gate"))
    return down is not None and down.dim() == 3 and described
