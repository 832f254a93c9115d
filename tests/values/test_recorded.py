import pytest
import torch

from lightning_edit import ContextTemplates, EditRequest
from lightning_edit.loading.pretrained import load_model
from lightning_edit.models.decoder import find_decoder
from lightning_edit.values.batch import prepare
from lightning_edit.values.optimize import encode_texts
from lightning_edit.values.recorded import Recordings, looped
from tests.architectures import build

TEMPLATES = ContextTemplates(("{}", "It is known. {}"))
REQUESTS = [EditRequest("Anna", "{} lives in", "Paris"), EditRequest("Rome", "{} lives in", "Paris")]


@pytest.mark.parametrize("family", ["GPT2", "Llama", "GPTJ"])
def test_a_model_without_experts_is_recorded_whatever_it_says_of_them(family):
    assert not looped(build(family))


def test_experts_that_are_run_one_after_the_other_are_not_recorded():
    model = load_model("tiny-moe", "float32")
    assert not looped(model)
    model.set_experts_implementation("eager")
    assert looped(model)


def test_a_pass_is_recorded_only_once_it_was_made(monkeypatch):
    made, recordings = [], Recordings(True)
    monkeypatch.setattr(recordings, "_recorded", lambda group, job: made.append(group))
    group, other = object(), object()
    assert recordings.replayed(group, lambda: None) is None
    recordings.passed(group)
    recordings.replayed(other, lambda: None)
    assert not made
    recordings.replayed(group, lambda: None)
    assert made == [group]


def test_texts_of_fewer_edits_count_as_new(tiny_tokenizer):
    decoder = find_decoder(build("GPT2"))
    rows = encode_texts(tiny_tokenizer, REQUESTS, TEMPLATES, "{} is a", None)
    group, _ = prepare(decoder, 0, "block", rows, len(TEMPLATES))
    recordings, going = Recordings(True), torch.tensor([True, False])
    recordings.passed(group)
    (fewer,) = recordings.fewer([group], going)
    assert fewer.picks.answers == int((fewer.picks.targets >= 0).sum()) == group.picks.answers // 2
    assert recordings.replayed(fewer, lambda: pytest.fail("it was not made before")) is None
