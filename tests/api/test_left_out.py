"""Edits of a call that have no value: they are not in the model, and nothing says that they were."""

import pytest
import torch

from lightning_edit import ContextTemplates, EditRequest, ValueSettings
from lightning_edit.editor import Editor
from lightning_edit.loop.value_finder import ValueFinder
from lightning_edit.metrics.token_scores import score_targets
from lightning_edit.models.decoder import find_decoder
from tests.api.test_sequential import FIRST, SECOND, THIRD, TOKENIZER, made
from tests.small_models import make_gpt2


def overflowing(model, requests):
    """The requests, the one whose answer is the most likely first, and settings by which all others overflow."""
    asked = [(request.rewrite_prompt, request.target_new) for request in requests]
    losses = (-score_targets(find_decoder(model), TOKENIZER, asked).log_probs).tolist()
    (least, first), (second, _) = sorted(zip(losses, range(len(losses)), strict=True))[:2]
    # Their first step is so long that its decay is no number of float32.
    steps = {"lr": 1e30, "clamp_norm_factor": 1e30, "weight_decay": 1e20, "kl_factor": 0.0, "steps": 4}
    values = ValueSettings(early_stop_loss=(least + second) / 2, **steps)
    return [requests[first], *(one for one in requests if one is not requests[first])], values


def test_only_what_was_written_counts_as_made(tmp_path, caplog):
    model = make_gpt2(torch.float32)
    requests, values = overflowing(model, [FIRST, SECOND, THIRD])
    result = made(model, requests, values=values)
    assert result.info["edits"] == 1
    assert [edit["subject"] for edit in result._edits()] == [requests[0].subject]
    assert caplog.text.count("this edit is left out") == 2
    assert "1 edit" in str(result.summary())


def test_an_earlier_edit_stays_preserved_where_its_replacement_is_left_out(monkeypatch):
    model, ranks, write = make_gpt2(torch.float32), [], Editor.write

    def noting(self, *args, **kwargs):
        keys = self.previous_keys[0].dense()
        ranks.append(0 if keys is None else int(torch.linalg.matrix_rank(keys)))
        return write(self, *args, **kwargs)

    made(model, [FIRST])
    replacing = EditRequest(FIRST.subject, FIRST.prompt, "London and Paris and London")
    requests, values = overflowing(model, [SECOND, replacing])
    assert requests[1] is replacing
    monkeypatch.setattr(Editor, "write", noting)
    made(model, requests, values=values, previous_keys=True)
    assert ranks == [1]


@pytest.mark.parametrize("earlier", [[0], [1], [0, 1]])
def test_values_on_the_unedited_model_do_not_know_earlier_calls(earlier, monkeypatch):
    found, find = [], ValueFinder.__call__

    def noting(self, *args, **kwargs):
        found.append(find(self, *args, **kwargs))
        return found[-1]

    how = {"values": ValueSettings(steps=3, weights="unedited", norm_anchor="auto"), "templates": ContextTemplates()}
    monkeypatch.setattr(ValueFinder, "__call__", noting)
    model = make_gpt2()
    made(make_gpt2(), [SECOND], layers=[1], **how)
    made(model, [FIRST], layers=earlier)
    made(model, [SECOND], layers=[1], **how)
    assert torch.equal(found[-1].z0, found[1].z0)
    assert torch.equal(found[-1].z, found[1].z)


def test_cached_values_know_what_earlier_calls_changed_in_other_layers(tmp_path):
    values, found = ValueSettings(steps=3, cache_dir=str(tmp_path)), []
    for earlier in (False, True, False, True):
        model = make_gpt2()
        if earlier:
            made(model, [FIRST], layers=[0])
        found.append(made(model, [SECOND], layers=[1], values=values).layers[1].factors.dense())
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])
    assert not torch.allclose(found[0], found[1], rtol=1e-2)
