"""The embedded models before any training: how large each is, and how it is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch.nn import Parameter
from torch.optim import AdamW, Muon, Optimizer
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from lightning_edit.tiny.muon import StackedMuon
from lightning_edit.tiny.tokenizer import CONTEXT_LENGTH


@dataclass(frozen=True)
class Recipe:
    """How one of the embedded models is made.

    Attributes:
        build: Returns the untrained model for a tokenizer, initialized from the global seed.
        steps: Optimizer steps.
        muon: Returns the optimizer of the matrices inside the blocks, with its peak learning rate.
        adam: That of everything else.
        balance: Factor of the loss that keeps the experts of each block equally busy; 0 for a model without experts.
    """

    build: Callable[[PreTrainedTokenizerBase], PreTrainedModel]
    steps: int
    muon: Callable[[list[Parameter]], Optimizer]
    adam: Callable[[list[Parameter]], Optimizer]
    balance: float = 0.0


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    return {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}


def build_dense(tokenizer: PreTrainedTokenizerBase) -> GPT2LMHeadModel:
    """Return an untrained GPT-2, initialized from the global seed."""
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
            **_special_tokens(tokenizer),
        )
    )


def build_experts(tokenizer: PreTrainedTokenizerBase) -> Qwen3MoeForCausalLM:
    """Return an untrained Qwen3-MoE, initialized from the global seed.

    Its experts have together as many hidden units in a block as the dense model has, 1,024; a token sees a quarter.
    """
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=CONTEXT_LENGTH,
            hidden_size=192,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=48,
            num_experts=8,
            num_experts_per_tok=2,
            moe_intermediate_size=128,
            intermediate_size=128,  # of dense blocks, of which there are none
            norm_topk_prob=True,
            tie_word_embeddings=True,
            **_special_tokens(tokenizer),
        )
    )


ADAM = partial(AdamW, lr=2e-3, betas=(0.9, 0.95), weight_decay=0.0)
RECIPES = {
    "tiny": Recipe(build_dense, 2400, partial(Muon, lr=3e-3, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"), ADAM),
    "tiny-moe": Recipe(build_experts, 2400, partial(StackedMuon, lr=3e-3), ADAM, balance=0.01),
}
