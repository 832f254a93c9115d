"""An adapter for llama.cpp: what llama.cpp computes with it is the update, for every architecture."""

import pytest
import torch
import transformers
from huggingface_hub import ModelCard
from transformers import CONFIG_MAPPING

from lightning_edit.cli import main as cli
from lightning_edit.errors import EditError
from lightning_edit.loading.pretrained import load_model
from lightning_edit.models.decoder import find_decoder
from lightning_edit.updates.model_update import ModelUpdate
from tests.families import families, small
from tests.small_models import make_tokenizer

gguf = pytest.importorskip("gguf")

from lightning_edit.export.gguf_names import Names, architecture_of  # noqa: E402
from tests.gguf_files import MODELS, TYPES, edit, random_update  # noqa: E402

FAMILIES = dict(families())


def command(*words):
    cli.main(["export", *map(str, words)])


def refused(capsys, *words):
    with pytest.raises(SystemExit):
        command(*words)
    return " ".join(capsys.readouterr().err.split())


def contents(path):
    """The metadata of a GGUF file, and its tensors in float32."""
    reader = gguf.GGUFReader(path)
    tensors = {t.name: torch.tensor(gguf.dequantize(t.data, t.tensor_type)) for t in reader.tensors}
    return {name: field.contents() for name, field in reader.fields.items()}, tensors


def added(path):
    """What llama.cpp adds to each matrix: (alpha / r) B A, r being the rank of B."""
    said, tensors = contents(path)
    parts = {name.removesuffix(".lora_a") for name in tensors if name.endswith(".lora_a")}
    assert {f"{name}.lora_{part}" for name in parts for part in "ab"} == set(tensors)
    return {
        name: said["adapter.lora.alpha"] / b.shape[-1] * b.double() @ tensors[f"{name}.lora_a"].double()
        for name in parts
        if (b := tensors[f"{name}.lora_b"]) is not None
    }


MAPS = [f"model.layers.1.self_attn.{part}_proj" for part in "qkvo"]


@pytest.mark.parametrize(("made", "maps"), [*((made, None) for made in sorted(MODELS)), ("llama", MAPS)])
def test_what_it_adds_is_what_the_edited_file_has_more(made, maps, tmp_path):
    _, _, base = edit(tmp_path, made, TYPES.F32, maps)
    command(tmp_path / "update.safetensors", "--to", "gguf", "--out", tmp_path / "whole")
    command(tmp_path / "update.safetensors", "--to", "gguf-lora", "--out", tmp_path / "lora")
    whole, plain = contents(tmp_path / "whole" / "model.gguf")[1], contents(base)[1]
    changed = {name: whole[name] - plain[name] for name in plain if not torch.equal(whole[name], plain[name])}
    update = added(tmp_path / "lora" / "adapter.gguf")
    assert update.keys() == changed.keys()
    for name, change in changed.items():
        torch.testing.assert_close(update[name].float(), change, rtol=0, atol=1e-7)
        assert float(change.abs().max()) > 1e-4


@pytest.mark.parametrize("made", MODELS)
def test_the_adapter_of_a_folder_is_that_of_its_gguf_file(made, tmp_path):
    """llama.cpp's converter makes the file of a folder; both hold the same weights."""
    edit(tmp_path, made, TYPES.F32)
    command(tmp_path / "update.safetensors", "--to", "gguf-lora", "--out", tmp_path / "of-file")
    folder = tmp_path / "folder"
    MODELS[made]().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    update = ModelUpdate.load(tmp_path / "update.safetensors")
    update.info["model"] = str(folder)
    update.save(tmp_path / "second.safetensors")
    command(tmp_path / "second.safetensors", "--to", "gguf-lora", "--out", tmp_path / "of-folder")
    (said, tensors), (other, same) = (contents(tmp_path / f"of-{one}" / "adapter.gguf") for one in ("file", "folder"))
    assert said == other
    assert tensors.keys() == same.keys()
    assert all(torch.equal(tensors[name], same[name]) for name in tensors)


def test_what_it_says_is_what_llama_cpp_asks_for(tmp_path, capsys):
    edit(tmp_path)
    command(tmp_path / "update.safetensors", "--to", "gguf-lora")
    assert "llama.cpp puts it on a GGUF file of" in capsys.readouterr().out.replace("\n", " ")
    said, tensors = contents(tmp_path / "export-gguf-lora" / "adapter.gguf")
    expected = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}
    assert expected.items() <= said.items()
    # Updates of rank 2 and 3 in one file.
    assert said["adapter.lora.alpha"] == 3
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        f"blk.{block}.ffn_down.weight.lora_{part}": shape
        for block in (0, 1)
        for part, shape in (("a", (3, 128)), ("b", (64, 3)))
    }
    card = ModelCard.load(tmp_path / "export-gguf-lora" / "README.md")
    assert {"lora", "gguf"} <= set(card.data.tags)
    for text in ("architecture llama", "rank 3; it holds the whole update", "--lora adapter.gguf"):
        assert text in card.content


def test_a_smaller_rank_is_said_to_lose_something(tmp_path, capsys):
    edit(tmp_path)
    command(tmp_path / "update.safetensors", "--to", "gguf-lora", "--rank", 1, "--out", tmp_path / "out")
    assert "the truncated update still has was not measured" in capsys.readouterr().out.replace("\n", " ")
    assert "of the update are left out" in (tmp_path / "out" / "README.md").read_text()
    said, tensors = contents(tmp_path / "out" / "adapter.gguf")
    assert said["adapter.lora.alpha"] == 1 == len(tensors["blk.0.ffn_down.weight.lora_a"])


def test_a_finished_run_on_an_ordinary_model(finished, tmp_path):
    command(finished, "--to", "gguf-lora", "--out", tmp_path / "out")
    update = ModelUpdate.load(finished / "update.safetensors")
    sums = added(tmp_path / "out" / "adapter.gguf")
    for layer in update.layers.values():
        block = layer.module.split(".")[2]
        torch.testing.assert_close(sums[f"blk.{block}.ffn_down.weight"], layer.factors.dense(), rtol=0, atol=1e-6)
    assert contents(tmp_path / "out" / "adapter.gguf")[0]["general.architecture"] == "gpt2"


def test_rows_whose_order_is_not_known_are_refused(tmp_path, capsys):
    folder = tmp_path / "folder"
    MODELS["llama"]().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    random_update(load_model(str(folder)), str(folder), MAPS[:1]).save(tmp_path / "update.safetensors")
    said = refused(capsys, tmp_path / "update.safetensors", "--to", "gguf-lora", "--out", tmp_path / "out")
    assert "the order of its rows in a GGUF file depends on the converter" in said
    assert "convert_lora_to_gguf.py" in said
    assert not (tmp_path / "out").exists()


def test_an_architecture_is_named_where_it_is_not_known(finished, tmp_path, capsys):
    words = (finished, "--to", "gguf-lora", "--out", tmp_path / "out")
    assert "knows no architecture 'nope'" in refused(capsys, *words, "--gguf_arch", "nope")
    assert "no matrix for transformer.h.0.mlp.c_proj" in refused(capsys, *words, "--gguf_arch", "qwen3moe")
    command(*words, "--gguf_arch", "starcoder")
    assert contents(tmp_path / "out" / "adapter.gguf")[0]["general.architecture"] == "starcoder"
    config = type("Unknown", (), {"get_text_config": lambda self: self, "model_type": "opt"})()
    with pytest.raises(EditError, match=r"a opt model has is not known here.*--gguf_arch"):
        architecture_of(config)


@pytest.mark.parametrize(
    ("kind", "architecture", "matrix"),
    [
        ("cohere", "command-r", "FFN_DOWN"),
        ("falcon", "falcon", "FFN_DOWN"),
        ("gemma3_text", "gemma3", "FFN_DOWN"),
        ("gpt_neox", "gptneox", "FFN_DOWN"),
        ("gpt_oss", "gpt-oss", "FFN_DOWN_EXP"),
        ("llava", "llama", "FFN_DOWN"),
        ("mistral", "llama", "FFN_DOWN"),
        ("mixtral", "llama", "FFN_DOWN_EXP"),
        ("olmoe", "olmoe", "FFN_DOWN_EXP"),
        ("phi", "phi2", "FFN_DOWN"),
        ("phi3", "phi3", "FFN_DOWN"),
        ("qwen2", "qwen2", "FFN_DOWN"),
        ("qwen3_vl", "qwen3vl", "FFN_DOWN"),
        ("stablelm", "stablelm", "FFN_DOWN"),
    ],
)
def test_families_have_their_names_in_llama_cpp(kind, architecture, matrix):
    config = small(CONFIG_MAPPING[kind])
    with torch.device("meta"):
        decoder = find_decoder(getattr(transformers, FAMILIES[kind])(config))
    assert architecture_of(config) == architecture
    names = Names(architecture, len(decoder.blocks))
    for block, name in enumerate(decoder.names[: len(decoder.blocks)]):
        found = names.find(name, decoder.model.get_submodule(name))
        assert (found[0].name, found[1].startswith(f"blk.{block}.ffn_down")) == (matrix, True)
