"""Small random models of many families, built from their configurations without a download."""

from typing import Any

import pytest
import transformers

from lightning_edit.tiny import MODEL_PATH

VOCABULARY = transformers.AutoConfig.from_pretrained(MODEL_PATH).vocab_size
COMMON = {"vocab_size": VOCABULARY, "num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 4}
MODERN = {**COMMON, "intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 128}
SIZES: dict[str, dict[str, Any]] = {
    "GPT2": {"vocab_size": VOCABULARY, "n_layer": 3, "n_embd": 32, "n_head": 4, "n_positions": 128},
    "GPTJ": {"vocab_size": VOCABULARY, "n_layer": 3, "n_embd": 32, "n_head": 4, "n_positions": 128, "rotary_dim": 4},
    "GPTNeoX": {**COMMON, "intermediate_size": 64, "max_position_embeddings": 128},
    "Llama": MODERN,
    "Mistral": {**MODERN, "sliding_window": 8},
    "Qwen2": MODERN,
    "Qwen3": {**MODERN, "head_dim": 8},
    "Gemma2": {**MODERN, "head_dim": 8, "sliding_window": 8},
    "Gemma3Text": {**MODERN, "head_dim": 8, "sliding_window": 8},
    "Olmo2": MODERN,
    "Granite": {**MODERN, "residual_multiplier": 0.22},
    "Phi": {**MODERN, "num_key_value_heads": 4},
    "Phi3": {**MODERN, "pad_token_id": 0},
    "SmolLM3": {**MODERN, "pad_token_id": 0},
    "OPT": {**COMMON, "ffn_dim": 64, "max_position_embeddings": 128, "word_embed_proj_dim": 32},
    "Falcon": {**COMMON, "alibi": True, "new_decoder_architecture": False},
    "Bloom": {"vocab_size": VOCABULARY, "n_layer": 3, "hidden_size": 32, "n_head": 4},
}
ROUTED = {**MODERN, "head_dim": 8, "num_experts_per_tok": 2}
# Mixtures of experts: a layer has one tensor of three dimensions for all of them, here as it is and there transposed.
EXPERTS: dict[str, dict[str, Any]] = {
    "Qwen3Moe": {**ROUTED, "moe_intermediate_size": 24, "num_experts": 8},
    "GptOss": {**ROUTED, "intermediate_size": 24, "num_local_experts": 8, "layer_types": ["full_attention"] * 3},
}
# One of each structure: positions learned, rotary, none; blocks in a row and side by side; norms after, windows.
STRUCTURES = ("GPT2", "GPTJ", "Llama", "Mistral", "Gemma2", "OPT", "Falcon")
# Where a test of one family takes long.
FAMILIES = [name if name in STRUCTURES else pytest.param(name, marks=pytest.mark.slow) for name in SIZES]


def build(family: str, **changes: Any) -> Any:
    """A random causal language model of a family, always the same.

    Args:
        family: One of `SIZES` or `EXPERTS`, the prefix of the configuration's class.
        **changes: Settings to change.
    """
    config = getattr(transformers, f"{family}Config")(
        **{**(SIZES | EXPERTS)[family], "bos_token_id": 0, "eos_token_id": 0, **changes}
    )
    transformers.set_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval()
