import torch
from transformers import AutoModelForCausalLM

from lightning_edit.models.decoder import find_decoder
from lightning_edit.tiny import MODEL_PATH


def test_each_question_is_answered_for_the_weights_of_its_time():
    model = AutoModelForCausalLM.from_pretrained(MODEL_PATH)
    resumption = find_decoder(model, None).resumption
    assert resumption.after(0)
    with torch.no_grad():
        model.get_submodule("transformer.h.0.mlp.c_proj").weight.mul_(1.05)
    assert resumption.prefixes
    assert resumption.after(1)
