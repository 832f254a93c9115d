"""A chat model, small enough to be edited in a moment."""

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_edit.tiny import MODEL_PATH

# The shortest template there is: what is asked, and behind it the answer.
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    AutoModelForCausalLM.from_pretrained(MODEL_PATH).save_pretrained(folder)
    return str(folder)
