"""LoRA against a plain loop, and that it leaves an ordinary update and no adapter."""

import pytest
import torch

from lightning_edit import EditError, ModelUpdate
from lightning_edit.asking.tokenization import encode_target
from lightning_edit.callbacks import ExportEdits
from lightning_edit.datamodules import TinyWorld
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.models.decoder import find_decoder
from lightning_edit.run.methods.lora import ADAPTER, LoRA
from tests.trainers import quiet_trainer

EPOCHS, LR, ALPHA, RANK = 3, 0.01, 6.0, 2


def plain_loop(requests, down):
    """Adam on A and B, one text at a time."""
    model, tokenizer = load_model("tiny", "float64").requires_grad_(False), load_tokenizer("tiny")
    module = find_decoder(model).down_projection(0)
    down, up = down.clone().requires_grad_(), torch.zeros(module.weight.shape[1], RANK).double().requires_grad_()
    optimizer = torch.optim.Adam([down, up], lr=LR)
    # GPT-2 keeps W transposed.
    module.register_forward_hook(lambda _, inputs, output: output + ALPHA / RANK * (inputs[0] @ down.T @ up.T))
    for _ in range(EPOCHS):
        loss = 0.0
        for request in requests:
            ids, where = encode_target(tokenizer, request.rewrite_prompt, request.target_new)
            log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            loss -= sum(log_probs[i - 1, ids[i]] for i in range(where, len(ids))) / (len(ids) - where) / len(requests)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return ALPHA / RANK * (up @ down).detach()


def test_equals_a_plain_loop_and_leaves_an_ordinary_update(tmp_path, monkeypatch):
    made = LoRA("tiny", rank=RANK, alpha=ALPHA, layers=[0], lr=LR, dtype="float64", early_stop_loss=0)
    started = {}

    def configure(self):
        before = torch.get_rng_state()
        optimizer = LoRA.configure_optimizers(self)
        assert torch.equal(torch.get_rng_state(), before)
        started["A"] = self._adapters[0].lora_A[ADAPTER].weight.detach().clone()
        return optimizer

    monkeypatch.setattr(made, "configure_optimizers", lambda: configure(made))
    quiet_trainer(tmp_path, ExportEdits(model=False), epochs=EPOCHS).fit(made, datamodule=TinyWorld(edits=3))
    expected = plain_loop(made.requests, started["A"].double())
    factors = made.weights.added[0]
    assert (factors.left.shape[1], len(factors.right)) == (RANK, RANK)
    # Adam divides rounding by rounding where a gradient is nearly zero.
    assert float((factors.dense() - expected).abs().quantile(0.99)) < 1e-9
    assert not hasattr(made.model, "peft_config")
    (saved,) = tmp_path.glob("**/update.safetensors")
    model = load_model("tiny", "float64")
    ModelUpdate.load(saved).insert(model)
    assert torch.equal(find_decoder(model).weight(0), made.decoder.weight(0))


def test_what_lora_is_not_made_for_is_refused():
    with pytest.raises(EditError, match="`norm_constraint` bounds the entries of W"):
        LoRA("tiny", norm_constraint=0.1)
    with pytest.raises(EditError, match=r"Layer 0 has experts.*`model.sites: shared`"):
        LoRA("tiny-moe", layers=[0]).configure_model()
