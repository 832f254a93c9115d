"""What a call in Python has edited, in the GGUF file that its model was read from: the same file as by the command."""

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM

from lightning_edit import MEMIT, ContextTemplates, EditError, ValueSettings, edit
from lightning_edit.cli import main as cli
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.models.decoder import find_decoder
from tests.small_models import make_request

pytest.importorskip("gguf")

from tests.gguf_files import write

IDS = torch.arange(3, 33).view(2, 15)
OTHER = make_request(subject="Anna", prompt="{} went to school in", target_new="London", target_true="Rome")


def made(model, base, request=None, layer=0):
    moments = {layer: torch.eye(find_decoder(model).moment_shape(layer)[0], dtype=torch.float64)}
    how = {"templates": ContextTemplates(), "values": ValueSettings(steps=3), "chat": False, "moments": moments}
    requests = [request or make_request()]
    return edit(model, load_tokenizer(str(base)), requests, MEMIT(20.0), [layer], progress=False, **how)


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("by_transformers", [False, True])
def test_it_is_the_file_of_the_command_whether_the_update_is_in_the_model_or_not(by_transformers, tmp_path):
    base = tmp_path / "base.gguf"
    write(base)
    from_pretrained = AutoModelForCausalLM.from_pretrained
    model = from_pretrained(tmp_path, gguf_file=base.name) if by_transformers else load_model(str(base))
    result = made(model, base)
    named = {"base": base} if by_transformers else {}
    written = result.to_gguf(tmp_path / "inserted", **named)
    edited = logits(model)
    torch.testing.assert_close(logits(load_model(str(written.path))), edited, rtol=0, atol=1e-4)
    assert [(name, one.kind.name) for name, one in written.rounded.items()] == [("model.layers.0.mlp.down_proj", "F32")]
    result.save(tmp_path / "update.safetensors")
    result.remove()
    removed = result.to_gguf(tmp_path / "removed", **named)
    words = ["--to", "gguf", "--out", str(tmp_path / "out"), "--model", str(base)]
    cli.main(["export", str(tmp_path / "update.safetensors"), *words])
    files = [path.read_bytes() for path in (written.path, removed.path, tmp_path / "out" / "model.gguf")]
    assert files[0] == files[1] == files[2] != base.read_bytes()
    card = ModelCard.load(tmp_path / "inserted" / "README.md")
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "gguf")
    assert "| The Eiffel Tower is located in the city of | Rome |" in card.content


def test_edits_of_other_calls_are_not_in_it(tmp_path, caplog):
    base = tmp_path / "base.gguf"
    write(base)
    model = load_model(str(base))
    first, second = made(model, base), made(model, base, OTHER, layer=0)
    before = logits(model)
    of_both = [result.to_gguf(tmp_path / name).path for result, name in ((first, "first"), (second, "second"))]
    assert [text for text in caplog.messages if "earlier calls" in text] == [
        "Edits of earlier calls, in 1 matrix, are not in the file: it holds those of this call alone."
    ]
    torch.testing.assert_close(logits(model), before, rtol=0, atol=0)
    for result, path in zip((second, first), reversed(of_both), strict=True):
        (second if result is first else first).remove()
        torch.testing.assert_close(logits(load_model(str(path))), logits(model), rtol=0, atol=1e-4)
        (second if result is first else first).insert()


def test_what_cannot_become_a_gguf_file_is_refused(tmp_path):
    base, other = tmp_path / "base.gguf", tmp_path / "other.gguf"
    write(base)
    write(other, made="gpt2", architecture="gpt2")
    result = made(load_model(str(base)), base)
    refused = [
        ({"base": tmp_path / "none.gguf"}, r"`base` must be the GGUF file .*none\.gguf, which is none"),
        ({"base": other}, r"holds no|holds other numbers"),
        ({}, r"the model only says '/.*, where 2 such files are found\."),
        ({"gguf_type": "Q3_K"}, r"`gguf_type` must be one of auto, F32"),
        ({"max_error": 1e-9}, r"makes an error of"),
        ({"gguf_type": "TQ1_0"}, r"blocks of 256|would take the edits out again"),
    ]
    for given, message in refused:
        with pytest.raises(EditError, match=message):
            result.to_gguf(tmp_path / "out", **{"base": base, **given} if given else {})
    result.to_gguf(tmp_path / "out", base)
    with pytest.raises(EditError, match="is there already"):
        result.to_gguf(tmp_path / "out", base)
