"""Low-rank adapters trained on the edits, by PEFT: a baseline that fine-tunes few numbers."""

from importlib.util import find_spec
from typing import Any

import torch

from lightning_edit.errors import EditError
from lightning_edit.models.seeded import seeded
from lightning_edit.run.methods.fine_tuning import FineTuning
from lightning_edit.settings import Count, Positive
from lightning_edit.solvers import Factors

ADAPTER = "edits"


class LoRA(FineTuning):
    """LoRA (Hu et al., 2021, arXiv 2106.09685): Adam on A and B of W0 + alpha / rank B A for the new targets' NLL.

    PEFT trains an adapter of each edited matrix, in the same loop as `FineTuning`. What it has learned becomes the
    update of the run, in the same low-rank factors, and the adapter is taken off. It needs the package ``peft``.

    Args:
        model: See `FineTuning`, as all that is not named here.
        rank: r, how many rows A has.
        alpha: The update is scaled by alpha / rank.
        **settings: See `FineTuning`.
    """

    def __init__(self, model: str, rank: Count = 8, alpha: Positive = 16.0, **settings: Any) -> None:
        super().__init__(model, **settings)
        self.save_hyperparameters(ignore="trust_remote_code")
        if self.eps is not None:
            raise EditError("`norm_constraint` bounds the entries of W, which LoRA does not train: leave it out.")
        if find_spec("peft") is None:
            raise EditError("LoRA needs the package peft, which is missing: pip install 'lightning-edit[peft]'.")
        self.rank, self.alpha = rank, alpha
        self._adapters: dict[int, Any] = {}

    def configure_model(self) -> None:
        """Loads the model, of which nothing is trained.

        Raises:
            EditError: If a layer has experts.
        """
        super().configure_model()
        for layer in self.layers:
            self.decoder.parameter(layer).requires_grad_(False)
            if self.decoder.experts(layer):
                raise EditError(
                    f"Layer {layer} has experts, for which LoRA is not made here. Set `model.sites: shared`."
                )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam on the adapters, which are put beside the edited matrices."""
        from peft import LoraConfig, inject_adapter_in_model

        names = [self.decoder.names[layer] for layer in self.layers]
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=names)  # type: ignore[arg-type]  # any number
        with seeded(self.seed):
            inject_adapter_in_model(config, self.model, ADAPTER)
        self._adapters = {layer: self.decoder.down_projection(layer) for layer in self.layers}
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return torch.optim.Adam(trained, lr=self.lr, weight_decay=self.weight_decay)

    def learned(self) -> dict[int, Factors]:
        """For each layer alpha / rank B ``(d_out, rank)`` and A ``(rank, d_in)``; the adapters are taken off."""
        found = {}
        for layer, adapter in self._adapters.items():
            down, up = (maps[ADAPTER].weight.detach().double() for maps in (adapter.lora_A, adapter.lora_B))
            found[layer] = Factors(up * adapter.scaling[ADAPTER], down)
            parent, _, name = self.decoder.names[layer].rpartition(".")
            setattr(self.model.get_submodule(parent), name, adapter.base_layer)
        self._adapters = {}
        # By this it would be known as a model that carries adapters.
        del self.model.peft_config
        return found

    def take_over(self, learned: dict[int, Factors]) -> None:
        """Writes what was learned into the weights."""
        self.weights.set(learned)
