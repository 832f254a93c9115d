"""Every causal language model of the installed transformers, built small from its configuration without a download."""

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, PretrainedConfig
from transformers.models.auto import modeling_auto

from lightning_edit.tiny import MODEL_PATH

VOCABULARY = transformers.AutoConfig.from_pretrained(MODEL_PATH).vocab_size
LAYERS, EXPERTS, LARGEST = 4, 8, 20e6
# What a setting of this name becomes, wherever a configuration has it.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("hidden_size", "hidden_dim", "n_embd", "d_model", "dim", "embedding_size", "emb_dim"), 32),
    **dict.fromkeys(("lru_width", "conv_dim", "word_embed_proj_dim", "attn_intermediate_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "n_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "linear_num_value_heads", "linear_num_heads", "mamba_n_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "encoder_layers", "linear_num_key_heads", "index_n_heads"), 2),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "moe_top_k"), 2),
    **dict.fromkeys(("top_k_experts", "mamba_expand"), 2),
    **dict.fromkeys(("head_dim", "attention_head_dim", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("index_head_dim", "linear_key_head_dim", "linear_value_head_dim", "linear_head_dim"), 8),
    **dict.fromkeys(("mamba_d_state", "ssm_state_size", "state_size", "mamba_num_heads", "mamba_head_dim"), 8),
    **dict.fromkeys(("d_kv", "hidden_size_per_layer_input"), 8),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), EXPERTS),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "dim_ff", "ff_dim", "d_ff", "dff"), 48),
    **dict.fromkeys(("ffn_hidden_size", "feed_forward_hidden_size", "block_ff_dim", "d_inner"), 48),
    **dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim"), 48),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"), 24),
    **dict.fromkeys(("moe_shared_expert_intermediate_size",), 24),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 128),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "mamba_d_head", "sliding_window"), 16),
    **dict.fromkeys(("mamba_d_ssm", "index_topk"), 64),
    **dict.fromkeys(("n_group", "topk_group", "mamba_n_groups", "n_mamba_heads"), 1),
    "mamba_dt_rank": 4,
    "rotary_dim": 4,
}
VISION = {
    **{name: SIZES[name] for name in ("hidden_size", "d_model", "intermediate_size", "encoder_ffn_dim", "head_dim")},
    **dict.fromkeys(("embed_dim", "out_hidden_size", "output_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "depth", "encoder_layers", "num_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "num_heads", "encoder_attention_heads", "num_key_value_heads"), 4),
    "image_size": 28,
    "patch_size": 14,
}
# What structure does not say, by the type of the configuration.
SPECIAL: dict[str, dict[str, Any]] = {
    "deepseek_ocr2": {"num_experts_per_tok": 2, "head_dim": 8},
    "deepseek_v2": {"num_experts_per_tok": 2, "head_dim": 8},
    "dots1": {"n_routed_experts": EXPERTS, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "falcon": {"head_dim": None},
    "gemma3n_text": {"num_kv_shared_layers": 2, "laurel_rank": 4, "activation_sparsity_pattern": [0.0] * LAYERS},
    "gemma4_text": {"global_head_dim": 8},
    "gemma4_unified_text": {"global_head_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 16},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "mistral4": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "head_dim": 8},
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2},
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "unlimited_ocr_text": {"num_key_value_heads": 4},
    "xlstm": {"v_head_dim": None},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
    },
    "zaya": {"num_experts_per_tok": 1},
}
NO_HEAD_SIZE = ("hunyuan_v1_dense", "hunyuan_v1_moe", "hunyuan_vl_text", "ministral")
SPECIAL |= {name: {"head_dim": 8} for name in NO_HEAD_SIZE}
# Positions in three dimensions, each of which takes a part of a head.
THREE = ("qwen2_vl_text", "qwen2_5_vl_text", "qwen2_5_omni_text", "glm4v_text", "glm4v_moe_text", "glm_ocr_text")
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
SPECIAL |= {name: {"rope_parameters": ROPE} for name in (*THREE, "paddleocr_vl_text", "glm46v_text")}


def families() -> list[tuple[str, str]]:
    """Type of configuration and name of class, of causal models and of those that read images and write text."""
    of_kinds = (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )
    return list(dict.fromkeys(pair for kind in of_kinds for pair in kind.items()))


def small(kind: type[PretrainedConfig], sizes: Mapping[str, Any] = SIZES) -> PretrainedConfig:
    """A configuration with few small layers.

    Args:
        kind: Its class.
        sizes: What settings become.
    """
    default = kind()
    given = default.to_dict()
    parts = {name: part for name in kind.sub_configs if (part := getattr(default, name, None)) is not None}
    settings = {
        name: value
        for name, value in sizes.items()
        if name not in parts and type(given.get(name)) in (int, float) and given[name]
    }
    settings |= _derived(vars(default), given, settings)
    settings |= {name: _small_part(type(part), name) for name, part in parts.items()}
    special = SPECIAL.get(kind.model_type, {}) if sizes is SIZES else {}
    merged = settings | special
    return kind(**{name: value for name, value in merged.items() if value is not None})


def _small_part(kind: type[PretrainedConfig], name: str) -> PretrainedConfig:
    reads_text = any(word in name for word in ("text", "llm", "language", "decoder", "thinker"))
    return small(kind, SIZES if reads_text else VISION)


def _derived(own: Mapping[str, Any], given: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What follows from sizes: one kind of each layer, heads of latent attention, special tokens in the vocabulary."""
    found: dict[str, Any] = {}
    if "kv_lora_rank" in given and "num_key_value_heads" in settings:
        found["num_key_value_heads"] = settings["num_attention_heads"]
    kinds = own.get("layer_types")
    if isinstance(kinds, list | tuple) and kinds and "num_hidden_layers" in settings:
        different = list(dict.fromkeys(kinds))
        found["layer_types"] = [different[i % len(different)] for i in range(settings["num_hidden_layers"])]
    for token in ("pad_token_id", "bos_token_id", "eos_token_id"):
        if isinstance(given.get(token), int):
            found[token] = 0
    return found


def build_family(model_type: str, class_name: str, dtype: torch.dtype = torch.float32) -> Any:
    """A random small model, always the same.

    Args:
        model_type: Of the configuration.
        class_name: Of the model.
        dtype: Of its weights.

    Raises:
        Exception: Whatever the configuration or the model raises; RuntimeError where it cannot be made small.
    """
    kind: Any = getattr(transformers, class_name)
    config = small(CONFIG_MAPPING[model_type])
    if not isinstance(config, kind.config_class) and isinstance(config.get_text_config(), kind.config_class):
        config = config.get_text_config()
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in kind(config).parameters())
    if parameters > LARGEST:
        raise RuntimeError(f"its configuration does not become small ({parameters / 1e6:,.0f} million parameters)")
    transformers.set_seed(0)
    model = kind(config).eval()
    _try(model)
    return model.to(dtype)


@torch.no_grad()
def _try(model: Any) -> None:
    """Refuses a model whose small configuration does not fit together; what needs an image is another matter."""
    try:
        model(input_ids=torch.tensor([[1, 2, 3, 4]]), use_cache=False)
    except Exception as error:
        if not any(word in str(error) for word in ("pixel", "image", "decoder_input_ids", "decoder_inputs")):
            raise RuntimeError(f"its small configuration does not run: {error}") from error


def experts_in_double(model: Any) -> Any:
    """The model with an implementation of experts that knows float64."""
    if any(hasattr(module, "has_gate") for module in model.modules()):
        model.set_experts_implementation("batched_mm")
    return model.double()
