"""Edits without a trainer are asked before and after, and the model is left as it was."""

import pytest
import torch

import lightning_edit
from lightning_edit import EditError, EditRequest, EditResult, JudgeSettings, ModelUpdate, WildSettings
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.tiny import World
from tests.judges import served


@pytest.fixture(scope="module")
def result():
    world = World.generate()
    fields = ("subject", "prompt", "target_new", "target_true", "paraphrase_prompts", "neighborhood_prompts")
    requests = [EditRequest(**{name: record[name] for name in fields}) for record in world.records(2, seed=0)]
    texts = world.sentences(0)
    return lightning_edit.edit(
        load_model("tiny"), load_tokenizer("tiny"), requests, layers=[0], texts=texts, progress=False
    )


@pytest.mark.parametrize("inserted", [True, False])
def test_a_result_is_asked_before_and_after(result, inserted, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    model = result.decoder.model
    if not inserted:
        result.remove(model)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    with served() as server:
        judge = JudgeSettings(model="marker", url=server.url, cache_dir=None)
        measured = lightning_edit.judged(result, WildSettings(new_tokens=8, unrelated=2), judge, progress=False)
    assert all(torch.equal(weights[name], weight) for name, weight in model.state_dict().items())
    assert result.is_inserted is inserted
    if not inserted:
        result.insert(model)
    before, after = measured["before"], measured["after"]
    assert before["wild_exact_reliability"] == 0 and after["wild_exact_reliability"] == 1
    assert before["wild_exact_locality"] == before["wild_judged_locality"] == 1
    for request, record in zip(result.requests, measured["records"], strict=True):
        assert record["reliability"][0]["text"] == request.target_new
        for entry in record["locality"]:
            shown = result.ask(entry["prompt"], tokens=8)
            assert (shown.after.strip().startswith(entry["text"]), shown.before.strip().startswith(entry["gold"])) == (
                True,
                True,
            )
    assert measured["wild"]["after"]["answers"] == measured["wild"]["before"]["answers"] == 2 * (1 + 2 + 2)


def test_an_update_that_knows_no_edits_is_refused(result):
    bare = EditResult(ModelUpdate(result.layers, result.info), result.decoder, result.tokenizer)
    with pytest.raises(EditError, match="knows no edits to ask about"):
        lightning_edit.judged(bare)
