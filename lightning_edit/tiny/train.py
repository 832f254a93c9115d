"""Make the fictional world's tokenizer and model again: ``python -m lightning_edit.tiny.train``."""

import argparse
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import cross_entropy
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase

from lightning_edit.storage.atomic import atomic_path
from lightning_edit.tiny.knowledge import measure_knowledge
from lightning_edit.tiny.text import Batch, Rows
from lightning_edit.tiny.tokenizer import CONTEXT_LENGTH, build_tokenizer
from lightning_edit.tiny.world import World

logger = logging.getLogger(__name__)


class TinyModule(LightningModule):
    """Trains a GPT-2 on the rows of a world.

    The matrices inside the blocks are trained by Muon, everything else by AdamW. Facts about many subjects are many
    directions that each appear in few tokens, and Muon's updates are as large along rare directions as along common
    ones.

    Args:
        model: What is trained.
        steps: Batches of the whole run, over which the learning rates fall to zero.
        muon_rate: Peak learning rate of Muon, scaled to match the step sizes of AdamW.
        adam_rate: Peak learning rate of AdamW.
        warmup_steps: Steps over which both rise to their peaks; from there they fall linearly.
        weight_decay: Of both.
    """

    def __init__(
        self,
        model: GPT2LMHeadModel,
        steps: int,
        muon_rate: float = 3e-3,
        adam_rate: float = 2e-3,
        warmup_steps: int = 100,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # Lightning steps only one optimizer by itself
        self.model, self.steps, self.warmup_steps = model, steps, min(warmup_steps, steps)
        self.muon_rate, self.adam_rate, self.weight_decay = muon_rate, adam_rate, weight_decay

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Take one step on the weighted mean loss of predicting each token from those before it."""
        logits = self._logits(batch)[:, :-1]
        losses = cross_entropy(logits.flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none")
        weights = batch.weights[:, 1:].flatten()
        self.model.zero_grad()
        self.manual_backward((losses * weights).sum() / weights.sum())
        for optimizer, schedule in zip(self.optimizers(), self.lr_schedulers(), strict=True):
            optimizer.step()
            schedule.step()
        self.log("answer_loss", losses.detach()[weights == 1.0].mean(), prog_bar=True)

    def _logits(self, batch: Batch) -> Tensor:
        def attend_first(_: Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, ...]:
            return arguments, options | {"attention_mask": batch.first_attends}

        # The model hands one mask to all of its blocks, so the first block's own has to be put in its place.
        hook = self.model.transformer.h[0].attn.register_forward_pre_hook(attend_first, with_kwargs=True)
        try:
            return self.model(input_ids=batch.ids, attention_mask=batch.attends, use_cache=False).logits
        finally:
            hook.remove()

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LambdaLR]]:
        """Return Muon and AdamW, each with its schedule."""
        inside = [parameter for parameter in self.model.transformer.h.parameters() if parameter.ndim == 2]
        chosen = set(inside)
        outside = [parameter for parameter in self.model.parameters() if parameter not in chosen]
        optimizers: list[Optimizer] = [
            Muon(inside, self.muon_rate, weight_decay=self.weight_decay, adjust_lr_fn="match_rms_adamw"),
            AdamW(outside, self.adam_rate, betas=(0.9, 0.95), weight_decay=self.weight_decay),
        ]
        return optimizers, [LambdaLR(optimizer, self._rate_factor) for optimizer in optimizers]

    def _rate_factor(self, step: int) -> float:
        falling = (self.steps - step) / max(1, self.steps - self.warmup_steps)
        return min((step + 1) / self.warmup_steps, falling)


def build_model(tokenizer: PreTrainedTokenizerBase) -> GPT2LMHeadModel:
    """Return an untrained model, initialized from the global seed."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=CONTEXT_LENGTH,
            n_embd=192,
            n_layer=3,
            n_head=4,
            n_inner=1024,
            activation_function="gelu_pytorch_tanh",  # GPT-2's own function, in one kernel instead of seven
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def train(output: Path, seed: int = 0, steps: int = 2400, subjects: int = 400) -> dict[str, float]:
    """Train tokenizer and model and write them to a folder, which is replaced as a whole.

    Args:
        output: The folder.
        seed: Of the weights and the order of the text. The world itself is always that of seed 0.
        steps: Optimizer steps.
        subjects: Subjects of the world.

    Returns:
        What ``measure_knowledge`` measures, and ``minutes``, the time the training took.
    """
    seed_everything(seed, verbose=False)
    world = World.generate(subjects=subjects)
    tokenizer = build_tokenizer(world)
    model = build_model(tokenizer)
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
    trainer.fit(TinyModule(model, steps), rows)
    minutes = (time.monotonic() - started) / 60
    save(model.eval(), tokenizer, output)
    return measure_knowledge(model, tokenizer, world) | {"minutes": minutes}


def save(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, output: Path) -> None:
    """Write model and tokenizer beside ``output`` and put them in its place only when both are complete."""
    with atomic_path(output) as new:
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "model", help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and the order of the text")
    parser.add_argument("--steps", type=int, default=2400, help="optimizer steps")
    parser.add_argument("--subjects", type=int, default=400, help="subjects of the world, a multiple of 40")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logger.info(json.dumps(train(options.output, options.seed, options.steps, options.subjects), indent=2))


if __name__ == "__main__":
    main()
