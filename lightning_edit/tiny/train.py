"""Make the fictional world's tokenizer and a model again: ``python -m lightning_edit.tiny.train``.

``--model tiny-moe`` makes the one with experts.
"""

import argparse
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.nn import Module, ModuleList
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func
from transformers.utils import ModelOutput

from lightning_edit.storage.atomic import atomic_path
from lightning_edit.tiny import MODELS
from lightning_edit.tiny.architectures import RECIPES, Recipe
from lightning_edit.tiny.knowledge import measure_knowledge
from lightning_edit.tiny.text import Batch, Rows
from lightning_edit.tiny.tokenizer import build_tokenizer
from lightning_edit.tiny.world import World

logger = logging.getLogger(__name__)


class TinyModule(LightningModule):
    """Trains a model on the rows of a world.

    The matrices inside the blocks are trained by Muon, everything else by AdamW. Facts about many subjects are many
    directions that each appear in few tokens, and Muon's updates are as large along rare directions as along common
    ones.

    Args:
        model: What is trained.
        recipe: Its optimizers, and how much its experts are kept equally busy.
        steps: Batches of the whole run, over which their learning rates fall to zero.
        warmup_steps: Steps over which they rise to their peaks; from there they fall linearly.
    """

    def __init__(self, model: PreTrainedModel, recipe: Recipe, steps: int, warmup_steps: int = 100) -> None:
        super().__init__()
        self.automatic_optimization = False  # Lightning steps only one optimizer by itself
        self.model, self.recipe, self.steps, self.warmup_steps = model, recipe, steps, min(warmup_steps, steps)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Take one step on the weighted mean loss of predicting each token from those before it."""
        outputs = self._outputs(batch)
        logits = outputs.logits[:, :-1]
        losses = cross_entropy(logits.flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none")
        weights = batch.weights[:, 1:].flatten()
        loss = (losses * weights).sum() / weights.sum()
        self.model.zero_grad()
        self.manual_backward(loss + self._imbalance(outputs) if self.recipe.balance else loss)
        for optimizer, schedule in zip(self.optimizers(), self.lr_schedulers(), strict=True):
            optimizer.step()
            schedule.step()
        self.log("answer_loss", losses.detach()[weights == 1.0].mean(), prog_bar=True)

    def _outputs(self, batch: Batch) -> ModelOutput:
        def attend(attention: Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, ...]:
            mask = batch.attends if attention.layer_idx else batch.first_attends
            return arguments, options | {"attention_mask": mask}

        # A model hands one mask to all of its blocks, so each block's own has to be put in its place.
        attentions = [module for module in self.model.modules() if hasattr(module, "layer_idx")]
        hooks = [attention.register_forward_pre_hook(attend, with_kwargs=True) for attention in attentions]
        options = {"output_router_logits": True} if self.recipe.balance else {}
        try:
            return self.model(input_ids=batch.ids, use_cache=False, **options)
        finally:
            for hook in hooks:
                hook.remove()

    def _imbalance(self, outputs: ModelOutput) -> Tensor:
        """Return the loss of the routers, block by block: a sum over all blocks lets one make up for another."""
        config = self.model.config
        each = [
            load_balancing_loss_func((logits,), config.num_experts, config.num_experts_per_tok)
            for logits in outputs.router_logits
        ]
        return self.recipe.balance * torch.stack(each).mean()

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LambdaLR]]:
        """Return Muon and AdamW, each with its schedule."""
        blocks = next(module for module in self.model.modules() if isinstance(module, ModuleList))
        inside = [parameter for parameter in blocks.parameters() if parameter.ndim >= 2]
        chosen = set(inside)
        outside = [parameter for parameter in self.model.parameters() if parameter not in chosen]
        optimizers = [self.recipe.muon(inside), self.recipe.adam(outside)]
        return optimizers, [LambdaLR(optimizer, self._rate_factor) for optimizer in optimizers]

    def _rate_factor(self, step: int) -> float:
        falling = (self.steps - step) / max(1, self.steps - self.warmup_steps)
        return min((step + 1) / self.warmup_steps, falling)


def train(
    output: Path, seed: int = 0, steps: int | None = None, subjects: int = 400, name: str = "tiny"
) -> dict[str, float]:
    """Train tokenizer and model and write them to a folder, which is replaced as a whole.

    Args:
        output: The folder.
        seed: Of the weights and the order of the text. The world itself is always that of seed 0.
        steps: Optimizer steps; those of the recipe if not given.
        subjects: Subjects of the world.
        name: Which of the `RECIPES`.

    Returns:
        What ``measure_knowledge`` measures, and ``minutes``, the time the training took.
    """
    seed_everything(seed, verbose=False)
    world = World.generate(subjects=subjects)
    tokenizer = build_tokenizer(world)
    recipe = RECIPES[name]
    steps = recipe.steps if steps is None else steps
    model = recipe.build(tokenizer)
    rows = DataLoader(Rows(world, tokenizer, seed), batch_size=None)
    started = time.monotonic()
    trainer = Trainer(
        max_epochs=1,
        limit_train_batches=steps,
        accelerator="cpu",
        devices=1,
        deterministic=True,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(TinyModule(model, recipe, steps), rows)
    minutes = (time.monotonic() - started) / 60
    save(model.eval(), tokenizer, output)
    return measure_knowledge(model, tokenizer, world) | {"minutes": minutes}


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output: Path) -> None:
    """Write model and tokenizer beside ``output`` and put them in its place only when both are complete."""
    with atomic_path(output) as new:
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=RECIPES, default="tiny", help="which model: dense, or with experts")
    parser.add_argument("--output", type=Path, help="folder to write; the shipped model's own if not given")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and the order of the text")
    parser.add_argument("--steps", type=int, help="optimizer steps; what the model needs if not given")
    parser.add_argument("--subjects", type=int, default=400, help="subjects of the world, a multiple of 40")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    output = options.output or MODELS[options.model]
    figures = train(output, options.seed, options.steps, options.subjects, options.model)
    logger.info(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
