"""A GGUF file is opened like a folder: dequantized, as transformers opens it, and saved as an ordinary model."""

import numpy
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from lightning_edit.errors import EditError
from lightning_edit.loading.pretrained import depth_of, load_model, load_tokenizer

gguf = pytest.importorskip("gguf")
TEMPLATE = "{% for message in messages %}<|user|>{{ message['content'] }}<|end|>{% endfor %}"
SIZES = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A small Llama with random weights as llama.cpp would write it, its matrices in 8 bits."""
    path = tmp_path_factory.mktemp("gguf") / "small.Q8_0.gguf"
    write(path)
    return path


def write(path, architecture="llama"):
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128)
    model = LlamaForCausalLM(config)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(320)
    letters = [chr(code) for code in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<|endoftext|>", *letters, "ab", "<|end|>"])
    writer.add_token_types([3, *[1] * (len(letters) + 1), 3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_chat_template(TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, tensor in model.state_dict().items():
        values = _interleaved(name, tensor).numpy()
        kind = gguf.GGMLQuantizationType.Q8_0 if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(
            names.get_name(name, (".weight",)), numpy.asarray(gguf.quantize(values, kind)), raw_dtype=kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _interleaved(name, tensor):
    """llama.cpp keeps the halves of each rotary head side by side."""
    for part, heads in (("q_proj", 4), ("k_proj", 2)):
        if part in name:
            return tensor.view(heads, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape).contiguous()
    return tensor


def test_a_gguf_file_agrees_with_transformers_own_loader(file):
    model, tokenizer = load_model(str(file)), load_tokenizer(str(file))
    own = {"gguf_file": file.name}
    reference = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **own)
    ids = tokenizer("abba")["input_ids"]
    assert ids == AutoTokenizer.from_pretrained(file.parent, **own)("abba")["input_ids"]
    assert model.dtype is torch.float32
    assert torch.equal(model(torch.tensor([ids])).logits, reference(torch.tensor([ids])).logits)
    assert depth_of(str(file)) == 2
    assert tokenizer.chat_template == TEMPLATE


def test_what_was_a_gguf_file_is_saved_as_an_ordinary_folder(file, tmp_path):
    model, tokenizer = load_model(str(file), "bfloat16"), load_tokenizer(str(file))
    assert model.dtype is torch.bfloat16
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, ids = load_model(str(tmp_path)), load_tokenizer(str(tmp_path))("abba")["input_ids"]
    assert ids == tokenizer("abba")["input_ids"]
    assert torch.equal(model(torch.tensor([ids])).logits, again(torch.tensor([ids])).logits)
    assert not hasattr(again.config, "quantization_config")
    assert load_tokenizer(str(tmp_path)).chat_template == TEMPLATE


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"GG"), "does not begin like a GGUF file"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "no tokenizer could be loaded"),
        (lambda path: write(path, "rwkv6"), "rwkv6 is not supported"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_words(tmp_path, damage, message):
    path = tmp_path / "m.gguf"
    write(path)
    damage(path)
    with pytest.raises(EditError, match=message):
        load_tokenizer(str(path))


def test_the_package_that_reads_it_is_named_where_it_is_missing(file, monkeypatch):
    monkeypatch.setattr("lightning_edit.loading.gguf_file.find_spec", lambda name: None)
    with pytest.raises(EditError, match=r"pip install 'lightning-edit\[gguf\]'"):
        load_tokenizer(str(file))
