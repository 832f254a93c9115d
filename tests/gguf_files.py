"""Small models with random weights, written into GGUF files as llama.cpp's converter would."""

import gguf
import numpy
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from lightning_edit import ModelUpdate
from lightning_edit.loading.pretrained import load_model
from lightning_edit.models.decoder import find_decoder
from lightning_edit.models.finding.sites import oriented_weight
from lightning_edit.solvers import Factors
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.updates.layer_update import LayerUpdate

TEMPLATE = "{% for message in messages %}<|user|>{{ message['content'] }}<|end|>{% endfor %}"
VOCABULARY, HEADS = 259, 4
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": HEADS, "num_key_value_heads": 2, "max_position_embeddings": 128}
# What transformers does not read from a file, and takes to be this: the width of experts, GPT-2's positions.
EXPERT_WIDTH, POSITIONS = 768, 1024
TYPES = gguf.GGMLQuantizationType


def llama():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES))


def gpt2():
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": HEADS, "n_inner": 256}
    return GPT2LMHeadModel(GPT2Config(**sizes, n_positions=POSITIONS, bos_token_id=0, eos_token_id=0))


def qwen3moe():
    torch.manual_seed(0)
    experts = {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": EXPERT_WIDTH,
        "norm_topk_prob": True,
    }
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES, **experts, head_dim=16, tie_word_embeddings=False))


MODELS = {"llama": llama, "gpt2": gpt2, "qwen3moe": qwen3moe}


def write(path, architecture="llama", kind=TYPES.Q8_0, made="llama", license="apache-2.0", **licensed):
    """Writes a model, its matrices in one type and the rest in float32.

    Args:
        path: Where to.
        architecture: What the file says it is.
        kind: The type of the matrices.
        made: Which of `MODELS`.
        license: What it says of its license, None for nothing.
        **licensed: What more, as ``license_name``.
    """
    model = MODELS[made]()
    writer = gguf.GGUFWriter(path, architecture)
    for name, said in {"license": license, **licensed}.items():
        if said is not None:
            writer.add_string(f"general.{name.replace('_', '.')}", said)
    writer.add_context_length(POSITIONS if made == "gpt2" else 128)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(256 if made == "gpt2" else 128)
    writer.add_head_count(HEADS)
    if made == "gpt2":
        writer.add_layer_norm_eps(1e-5)
    else:
        writer.add_head_count_kv(2)
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_rope_freq_base(10000.0)
        writer.add_vocab_size(VOCABULARY)
    if made == "qwen3moe":
        writer.add_key_length(16)
        writer.add_value_length(16)
        writer.add_expert_count(4)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(EXPERT_WIDTH)
    _add_tokenizer(writer)
    for name, values in tensors(model, made).items():
        kept = kind if values.ndim > 1 else TYPES.F32
        writer.add_tensor(name, numpy.asarray(gguf.quantize(values, kept)), raw_dtype=kept)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors(model, made):
    """The weights by the names and in the order of llama.cpp."""
    arch = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[made]
    names, found = gguf.get_tensor_name_map(arch, 2), {}
    for name, tensor in model.state_dict().items():
        if name.endswith("experts.gate_up_proj"):
            block = name.split(".")[2]
            for part, half in zip(("gate", "up"), tensor.chunk(2, dim=1), strict=True):
                found[f"blk.{block}.ffn_{part}_exps.weight"] = half.contiguous().numpy()
            continue
        own = names.get_name(name, (".weight", ".bias"))
        own = f"{own}.weight" if name.endswith("experts.down_proj") else own
        if made == "llama":
            tensor = _interleaved(name, tensor)
        if made == "gpt2" and tensor.ndim == 2 and ".h." in name:
            tensor = tensor.T
        found[own] = tensor.contiguous().numpy()
    return found


def _add_tokenizer(writer):
    letters = [chr(code) for code in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<|endoftext|>", *letters, "ab", "<|end|>"])
    writer.add_token_types([3, *[1] * (len(letters) + 1), 3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_chat_template(TEMPLATE)


def _interleaved(name, tensor):
    """llama.cpp keeps the halves of each rotary head side by side."""
    for part, heads in (("q_proj", HEADS), ("k_proj", 2)):
        if part in name:
            return tensor.view(heads, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape).contiguous()
    return tensor


def edit(folder, made="llama", kind=TYPES.Q8_0, modules=None, size=0.05):
    """A base file and an update of some of its matrices, of this size relative to them; the model, and both."""
    base = folder / "base.gguf"
    write(base, made, kind, made)
    model = load_model(str(base))
    update = random_update(model, str(base), modules, size)
    update.save(folder / "update.safetensors")
    return model, update, base


def random_update(model, source, modules=None, size=0.05):
    """An update of this size relative to the matrices, of rank 2, 3 and so on; see `edit`."""
    layers = {}
    for number, name in enumerate(modules or find_decoder(model).names):
        weight = oriented_weight(model.get_submodule(name)).double()
        generator = torch.Generator().manual_seed(number)
        left = torch.randn(len(weight), 2 + number, dtype=torch.float64, generator=generator)
        right = torch.randn(2 + number, weight[0].numel(), dtype=torch.float64, generator=generator)
        scale = size * float(weight.norm() / (left @ right).norm())
        layers[number] = LayerUpdate(
            name, fingerprint(oriented_weight(model.get_submodule(name))), Factors(scale * left, right)
        )
    return ModelUpdate(layers, {"model": source, "dtype": "float32", "solver": "EMMET()", "edits": 5})
