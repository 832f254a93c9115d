"""A LoRA adapter in the format of PEFT: ``adapter_model.safetensors`` and ``adapter_config.json``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lightning_edit.errors import EditError
from lightning_edit.export.low_rank import LowRank
from lightning_edit.export.ranks import Ranks, RankSettings, settle_ranks
from lightning_edit.models.finding.sites import experts_of, output_size, parameter_name
from lightning_edit.solvers.base import Factors
from lightning_edit.storage.tensor_form import write_tensors

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
# How PEFT calls the model that an adapter is put on.
PREFIX = "base_model.model."


@dataclass(frozen=True, repr=False)
class Adapter:
    """A LoRA adapter: what it adds to each matrix, W + B A, and what that lacks of the update.

    Args:
        ranks: For the name of each module that of its matrix.
        updates: For each the update.
        targets: For each its matrix as PEFT names it, a module's name or that of stacked matrices.
        stacked: The modules that hold a matrix for each expert.
        transposed: Whether weights are stored ``(d_in, d_out)``, as in GPT-2.
        dtype: Precision of A and B.
    """

    ranks: dict[str, Ranks]
    updates: Mapping[str, LowRank] = field(repr=False)
    targets: Mapping[str, str]
    stacked: frozenset[str]
    transposed: bool
    dtype: torch.dtype

    @property
    def exact(self) -> bool:
        """Whether it holds the whole update."""
        return all(ranks.kept >= ranks.full for ranks in self.ranks.values())

    def truncated(self) -> dict[str, Factors]:
        """What it holds of the update of each module, in the form of that."""
        return {name: update.truncated(self.ranks[name].kept) for name, update in self.updates.items()}

    def config(self, base: str, revision: str | None = None) -> dict[str, Any]:
        """What ``adapter_config.json`` says; alpha is the rank everywhere, so that nothing is scaled.

        Args:
            base: The folder or hub name of the model that it is put on.
            revision: Which of its revisions on the hub.
        """
        rank = max(ranks.written for ranks in self.ranks.values())
        # PEFT reads them as regular expressions, in which the dots of a name stand for any character.
        others = {self.targets[name]: r.written for name, r in self.ranks.items() if r.written != rank}
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "revision": revision,
            "inference_mode": True,
            "r": rank,
            "lora_alpha": rank,
            "rank_pattern": others,
            "alpha_pattern": others,
            "use_rslora": False,
            "use_dora": False,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": self.transposed,
            "init_lora_weights": True,
            "target_modules": [self.targets[name] for name in self.ranks if name not in self.stacked],
            "target_parameters": [self.targets[name] for name in self.ranks if name in self.stacked] or None,
        }

    def tensors(self) -> dict[str, Tensor]:
        """A and B of all matrices under the names that PEFT gives them."""
        tensors = {}
        for name, ranks in self.ranks.items():
            down, up = self.updates[name].adapter(ranks.kept, ranks.written)
            for part, tensor in (("lora_A", down), ("lora_B", up)):
                tensors[f"{PREFIX}{name}.{part}.weight"] = tensor.to("cpu", self.dtype).contiguous()
        return tensors

    def write(self, folder: Path, base: str, revision: str | None = None) -> None:
        """Writes both files.

        Args:
            folder: Where to; it is there.
            base: See `config`.
            revision: The same.
        """
        write_tensors(folder / WEIGHTS, self.tensors(), {"format": "pt"})
        config = json.dumps(self.config(base, revision), indent=2, ensure_ascii=False)
        (folder / CONFIG).write_text(config + "\n", encoding="utf-8")


def make_adapter(model: Any, updates: Mapping[str, Factors], settings: RankSettings) -> Adapter:
    """The adapter that does what updates do.

    Args:
        model: The model that they were made for; its weights are not looked at.
        updates: For the name of each edited module its update ``(d_out, d_in)``, of experts ``(d_out, E d_in)``.
        settings: Which ranks it may have.

    Raises:
        EditError: If there is no update, one is not of a matrix, or see `settle_ranks`.
    """
    if not updates:
        raise EditError("The update edits no matrix, so there is nothing to export.")
    modules = {name: _module(model, name) for name in updates}
    experts = {name: experts_of(module) for name, module in modules.items()}
    dtype = torch.float64 if model.dtype == torch.float64 else torch.float32
    split = {name: LowRank.of(factors, experts[name]) for name, factors in updates.items()}
    return Adapter(
        ranks=settle_ranks(split, settings, dtype),
        updates=split,
        targets={name: f"{name}.{parameter_name(modules[name])}" if experts[name] else name for name in updates},
        stacked=frozenset(name for name in updates if experts[name]),
        transposed=any(isinstance(module, Conv1D) for module in modules.values()),
        dtype=dtype,
    )


def _module(model: Any, name: str) -> nn.Module:
    try:
        module: nn.Module = model.get_submodule(name)
    except AttributeError as error:
        raise EditError(f"{type(model).__name__} has no module {name}, which the update edits.") from error
    if output_size(module) is None:
        raise EditError(
            f"The update changes {name}, a {type(module).__name__}, and a LoRA adapter can only add to matrices of "
            "linear maps (Linear, Conv1D or stacked experts). Export the edited model instead: --to model."
        )
    return module
