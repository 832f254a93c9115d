import pytest

from lightning_edit.loading.pretrained import load_model
from lightning_edit.values.recorded import looped
from tests.architectures import build


@pytest.mark.parametrize("family", ["GPT2", "Llama", "GPTJ"])
def test_a_model_without_experts_is_recorded_whatever_it_says_of_them(family):
    assert not looped(build(family))


def test_experts_that_are_run_one_after_the_other_are_not_recorded():
    model = load_model("tiny-moe", "float32")
    assert not looped(model)
    model.set_experts_implementation("eager")
    assert looped(model)
