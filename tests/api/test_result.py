"""What a call returns: figures before and after, measured once and whatever happens to the model later."""

import math

import pytest
import torch

import lightning_edit
from lightning_edit import ContextTemplates, ValueSettings, edit
from lightning_edit.metrics import EditMetrics, evaluate
from lightning_edit.metrics.settings import TEACHER_FORCED
from lightning_edit.models.decoder import find_decoder
from tests.api.test_sequential import LAYERS, SECOND, TOKENIZER, made, same, snapshot
from tests.small_models import make_gpt2, make_request

FULL = make_request(
    target_true="Paris",
    paraphrase_prompts=["You find the Eiffel Tower in", "Rome has the Eiffel Tower in"],
    neighborhood_prompts=["The Louvre is located in the city of"],
    locality=[("The capital of France is", "Paris")],
)


def figures_now(model, requests):
    metrics = EditMetrics()
    evaluate(find_decoder(model), TOKENIZER, requests, metrics, TEACHER_FORCED)
    return {name: float(value) for name, value in metrics.compute().items()}


def agree(figures, expected):
    assert {
        name for name in figures if name != "locality_unchanged" and not name.startswith("locality_unchanged_")
    } == set(expected)
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, abs=1e-12) or math.isnan(value)
    return True


def test_figures_are_those_of_the_model_before_and_after():
    model = make_gpt2()
    expected = figures_now(model, [FULL])
    result = made(model, [FULL])
    edited = snapshot(model)
    after = figures_now(model, [FULL])
    assert agree(result.after, after)
    assert agree(result.before, expected)
    assert result.before["locality_unchanged"] == 1
    assert result.after["efficacy_magnitude"] != result.before["efficacy_magnitude"]
    assert same(model, edited)
    assert [record["target_new"] for record in result.after.records] == ["Rome"]
    for kind in ("efficacy", "paraphrase", "neighborhood"):
        assert f"{kind}_score" in result.after


def test_figures_do_not_depend_on_when_they_are_asked_for():
    model, other = make_gpt2(), make_gpt2()
    early = made(other, [FULL])
    expected = dict(early.before), dict(early.after)
    result = made(model, [FULL])
    later = made(model, [SECOND], layers=[1])
    edited = snapshot(model)
    assert (dict(result.before), dict(result.after)) == expected
    assert dict(later.before) != dict(later.after)
    assert same(model, edited)
    again = made(other, [SECOND], layers=[1])
    other_later = dict(again.before), dict(again.after)
    result.remove()
    assert (dict(later.before), dict(later.after)) == other_later
    later.remove()
    assert same(model, snapshot(make_gpt2()))


def test_figures_are_measured_once(monkeypatch):
    model, passes = make_gpt2(), []
    model.register_forward_pre_hook(lambda *_: passes.append(1))
    result = made(model, [FULL])
    after_edit = len(passes)
    assert result.after is result.after
    once = len(passes)
    assert once > after_edit
    _ = result.after["efficacy_accuracy"], str(result.summary()), result.summary()._repr_html_()
    twice = len(passes)
    _ = result.before, result.summary(), repr(result)
    assert len(passes) == twice


def test_a_model_in_training_mode_is_measured_without_dropout_and_left_in_it():
    model = make_gpt2(resid_pdrop=0.5, embd_pdrop=0.5)
    expected = dict(made(make_gpt2(), [FULL]).before)
    result = made(model, [FULL])
    model.train()
    assert dict(result.before) == expected
    assert model.training


def test_the_summary_is_a_table_of_text_and_of_a_notebook():
    result = made(make_gpt2(), [FULL, SECOND])
    shown = str(result.summary())
    assert shown == repr(result.summary())
    for word in ("2 edits", "efficacy", "paraphrase", "neighborhood", "->"):
        assert word in shown
        assert word in result.summary()._repr_html_().replace("&gt;", ">")
    assert result.summary()._repr_html_().startswith("<pre")


def test_the_repr_is_one_line_and_says_whether_it_is_in_the_model():
    result = made(make_gpt2(), [FULL])
    assert "\n" not in repr(result)
    assert repr(result).startswith("EditResult(layers=[0, 1], edits=1, solver=MEMIT(")
    assert repr(result).endswith("in the model)")
    result.remove()
    assert repr(result).endswith("removed)")
    assert repr(result.after).startswith("Figures(efficacy_score=")


def test_a_removed_result_comes_back_as_it_was():
    model = make_gpt2(torch.bfloat16)
    result = made(model, [FULL])
    edited = snapshot(model)
    result.remove()
    result.insert()
    assert same(model, edited)
    with pytest.raises(lightning_edit.EditError, match="in the model already"):
        result.insert()


def test_layers_are_chosen_where_none_are_named(caplog):
    model = make_gpt2()
    moments = {layer: torch.eye(24, dtype=torch.float64) for layer in range(3)}
    how = {"moments": moments, "templates": ContextTemplates(), "values": ValueSettings(steps=2), "progress": False}
    assert set(edit(model, TOKENIZER, [FULL], **how).layers) <= {0, 1, 2}
    assert "layers" in caplog.text
    assert LAYERS
