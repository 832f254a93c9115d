"""An adapter on a quantized base does what the update beside its codes does."""

import copy
from importlib.util import find_spec

import pytest
import torch

from lightning_edit.export.adapter import make_adapter
from lightning_edit.export.folder import lora_facts, write_lora
from lightning_edit.export.ranks import RankSettings
from lightning_edit.loading.dequantization import dequantized_weight, holds_codes
from lightning_edit.loading.pretrained import load_model
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.updates.beside import put_beside
from lightning_edit.updates.layer_update import LayerUpdate
from lightning_edit.updates.model_update import ModelUpdate
from tests.small_models import make_factors, make_llama, make_tokenizer

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("bitsandbytes", "torchao", "peft"))),
    reason="`make test-quantized` installs bitsandbytes and torchao",
)
DOWN = "model.layers.1.mlp.down_proj"
IDS = torch.tensor([[5, 9, 200, 31, 7]])


@pytest.mark.parametrize("kind", ["bnb-4bit", "bnb-8bit", "torchao-int8"])
def test_an_adapter_on_codes(kind, tmp_path):
    from peft import PeftModel

    make_llama(torch.float32, hidden_size=64, intermediate_size=128).save_pretrained(tmp_path / "plain")
    make_tokenizer().save_pretrained(tmp_path / "plain")
    model = load_model(str(tmp_path / "plain"), quantization=kind)
    module = model.get_submodule(DOWN)
    assert holds_codes(module)
    base = fingerprint(dequantized_weight(DOWN, module).to(model.dtype).contiguous())
    factors = make_factors(64, 128, rank=3)
    adapter = make_adapter(model, {DOWN: factors}, RankSettings())
    write_lora(tmp_path / "lora", adapter, lora_facts(adapter, "somewhere", None, {}, []))
    before = model(IDS).logits
    wrapped = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / "lora")
    with torch.no_grad():
        given = wrapped(IDS).logits
    expected = put_beside(model, ModelUpdate({1: LayerUpdate(DOWN, base, factors)}))(IDS).logits
    assert float((expected - before).abs().max()) > 1e-2
    torch.testing.assert_close(given, expected, rtol=1e-3, atol=1e-3)
