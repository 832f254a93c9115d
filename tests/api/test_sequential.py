"""One call after the other on a model: what each adds, what it preserves, and what is left when some are removed."""

import copy
import logging

import pytest
import torch

from lightning_edit import (
    EMMET,
    MEMIT,
    AlphaEdit,
    ContextTemplates,
    EditError,
    ModelUpdate,
    SecondMomentSettings,
    ValueSettings,
    edit,
    edited,
)
from lightning_edit.models.decoder import find_decoder
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.updates.layer_update import LayerUpdate
from tests.small_models import SENTENCES, make_factors, make_gpt2, make_llama, make_request, make_tokenizer

FIRST = make_request()
SECOND = make_request(subject="Anna", prompt="{} went to school in", target_new="London", target_true="Rome")
THIRD = make_request(subject="Toyota Motor Corporation", prompt="The headquarters of {} are in", target_new="Rome")
LAYERS = [0, 1]
TOKENIZER = make_tokenizer()


def moments_of(model, layers=LAYERS):
    decoder = find_decoder(model)
    generator = torch.Generator().manual_seed(0)
    found = {}
    for layer in layers:
        size = decoder.moment_shape(layer)[0]
        keys = torch.randn(size, 4 * size, dtype=torch.float64, generator=generator)
        found[layer] = keys @ keys.T / keys.shape[1]
    return found


def made(model, requests, solver=None, layers=LAYERS, **how):
    given = {"moments": moments_of(model, layers), "templates": ContextTemplates(), "values": ValueSettings(steps=3)}
    return edit(model, TOKENIZER, requests, solver or MEMIT(20.0), layers, progress=False, **{**given, **how})


def snapshot(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(model, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def dense(result, layer):
    return result.layers[layer].factors.dense()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_results_are_removed_in_any_order_and_the_rest_stays(order, dtype):
    model = make_gpt2(dtype)
    before, decoder = snapshot(model), find_decoder(model)
    bases = {layer: decoder.weight(layer).double() for layer in LAYERS}
    results = [made(model, [request]) for request in (FIRST, SECOND, THIRD)]
    left = [0, 1, 2]
    for number in order:
        for layer in LAYERS:
            total = bases[layer] + sum(dense(results[other], layer) for other in left)
            torch.testing.assert_close(decoder.weight(layer), total.to(dtype), rtol=0, atol=0)
        results[number].remove()
        left.remove(number)
        assert [result.is_inserted for result in results] == [other in left for other in range(3)]
    assert same(model, before)


def test_rounding_does_not_build_up_over_calls():
    model = make_gpt2(torch.bfloat16)
    base = find_decoder(model).weight(0).double()
    results = [made(model, [request], layers=[0]) for request in (FIRST, SECOND, THIRD)]
    total = base + sum(dense(result, 0) for result in results)
    assert torch.equal(find_decoder(model).weight(0), total.to(torch.bfloat16))


def test_two_calls_do_what_one_editor_does_in_two_updates():
    """The reference: one editor that writes two updates and keeps the keys of the first, as a fit does."""
    from lightning_edit.editor import Editor
    from lightning_edit.updates.edited_weights import EditedWeights

    model, other = make_llama(), make_llama()
    decoder = find_decoder(other)
    weights = EditedWeights(decoder, LAYERS)
    how = (ContextTemplates(), ValueSettings(steps=3), moments_of(other))
    editor = Editor(weights, TOKENIZER, AlphaEdit(0.5), LAYERS, *how, previous_keys={})
    for request in (FIRST, SECOND):
        editor.write([request], editor.find_values([request]).z)
    for request in (FIRST, SECOND):
        made(model, [request], AlphaEdit(0.5))
    for layer in LAYERS:
        torch.testing.assert_close(find_decoder(model).weight(layer), decoder.weight(layer), rtol=0, atol=1e-12)


def moved(model, result, request):
    """How far an update moves what the layer gives for the key of an edit."""
    return float((result.layers[0].factors.dense() @ key_of(model, request)).norm())


def key_of(model, request):
    from lightning_edit.keys.edit_keys import compute_keys

    return compute_keys(find_decoder(model), TOKENIZER, [request], ContextTemplates(), 0).mean


@pytest.mark.parametrize("solver", [MEMIT(1.0), EMMET(0.1), AlphaEdit(1.0, ridge=0.1)], ids=lambda s: type(s).__name__)
def test_later_calls_move_the_keys_of_earlier_ones_less_where_they_preserve_them(solver):
    distances = {}
    for preserve in (False, True):
        model = make_gpt2()
        made(model, [FIRST], solver, layers=[0], previous_keys=preserve)
        second = made(model, [SECOND], solver, layers=[0], previous_keys=preserve)
        distances[preserve] = moved(model, second, FIRST)
    assert distances[True] < 0.9 * distances[False]


def test_whether_earlier_calls_are_preserved_is_the_solvers_default():
    for solver in (MEMIT(1.0), AlphaEdit(1.0, ridge=0.1)):
        found = []
        for preserve in (None, solver.preserves_edits):
            model = make_gpt2()
            made(model, [FIRST], solver, layers=[0], previous_keys=preserve)
            found.append(dense(made(model, [SECOND], solver, layers=[0], previous_keys=preserve), 0))
        assert torch.equal(*found)


def test_keys_of_removed_and_of_replaced_edits_are_not_preserved():
    solver, again = MEMIT(1.0), make_request(target_new="Berlin")
    how = {"layers": [0], "previous_keys": True}

    def second(first, request, remove=False):
        model = make_gpt2()
        result = made(model, first, solver, **how)
        if remove:
            result.remove()
        return dense(made(model, [request], solver, **how), 0)

    plain = dense(made(make_gpt2(), [SECOND], solver, **how), 0)
    assert torch.equal(second([FIRST], SECOND, remove=True), plain)
    model = make_gpt2()
    made(model, [FIRST], solver, **how)
    free = dense(made(model, [again], solver, layers=[0], previous_keys=False), 0)
    assert torch.allclose(second([FIRST], again), free, rtol=0, atol=1e-12)
    assert not torch.allclose(second([FIRST, SECOND], again), second([FIRST], again), rtol=0, atol=1e-6)


def test_second_moments_of_a_second_call_come_from_the_cache(tmp_path):
    model, settings = make_gpt2(), SecondMomentSettings(60, cache_dir=str(tmp_path))
    first = made(model, [FIRST], moments=None, texts=SENTENCES, second_moment=settings)
    files = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    second = made(model, [SECOND], moments=None, texts=SENTENCES, second_moment=settings)
    assert files
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == files
    assert first.layers[0].base == second.layers[0].base


def test_saved_results_go_into_a_fresh_model_in_any_order(tmp_path):
    model, fresh = make_gpt2(), make_gpt2()
    before = snapshot(fresh)
    for number, request in enumerate((FIRST, SECOND)):
        made(model, [request]).save(tmp_path / f"{number}.safetensors")
    loaded = [ModelUpdate.load(tmp_path / f"{number}.safetensors") for number in (1, 0)]
    for update in loaded:
        update.insert(fresh)
    for layer in LAYERS:
        weights = [find_decoder(each).weight(layer) for each in (model, fresh)]
        torch.testing.assert_close(*weights, rtol=0, atol=1e-12)
    for update in loaded:
        update.remove(fresh)
    assert same(fresh, before)


def test_updates_of_unknown_keys_are_said_not_to_be_preserved(caplog):
    model = make_gpt2()
    decoder = find_decoder(model)
    update = ModelUpdate({0: LayerUpdate(decoder.names[0], fingerprint(decoder.weight(0)), make_factors(16, 24))})
    update.insert(model)
    with caplog.at_level(logging.WARNING):
        made(model, [FIRST], layers=[0], previous_keys=True)
    assert "holds 1 update that a file or a fit brought" in caplog.text


def test_weights_that_something_else_changed_are_edited_as_they_are(caplog):
    model = make_gpt2()
    first = made(model, [FIRST])
    assert first.after
    with torch.no_grad():
        find_decoder(model).weight(1)[0, 0] += 0.1
    trained = snapshot(model)
    with caplog.at_level(logging.WARNING):
        second = made(model, [SECOND])
    assert "changed by something else since it was edited" in caplog.text
    with pytest.raises(EditError, match="Remove later updates first"):
        first.remove()
    second.remove()
    assert same(model, trained)
    with pytest.raises(EditError, match="is not its base weight plus this update"):
        first.remove()
    assert "after" in vars(first)
    with pytest.raises(EditError, match="it is not known how the model was"):
        _ = first.before


@pytest.mark.parametrize("calls", ["another layer", "the same layer", "fails"])
def test_an_update_can_be_removed_once_its_weight_is_again_what_it_was(calls, caplog):
    model = make_gpt2()
    unedited = snapshot(model)
    first = made(model, [FIRST], layers=[0])
    weight = find_decoder(model).weight(0).detach()
    edited_weight = weight.clone()
    with torch.no_grad():
        weight[0, 0] += 0.1
    changed = weight.clone()
    if calls == "fails":
        with pytest.raises(EditError, match="cannot be inverted"):
            made(model, [SECOND], layers=[0], moments={0: torch.zeros_like(moments_of(model)[0])})
    else:
        second = made(model, [SECOND], layers=[0 if calls == "the same layer" else 1])
        assert second.before != second.after
        with pytest.raises(EditError, match="is not its base weight plus this update"):
            first.remove()
        if calls == "the same layer":
            second.remove()
    assert "only be removed once it has the weights again" in caplog.text
    assert torch.equal(weight, changed)
    with torch.no_grad():
        weight.copy_(edited_weight)
    first.remove()
    if calls == "another layer":
        second.remove()
    assert same(model, unedited)


def test_edited_leaves_what_something_else_changed():
    model = make_gpt2()
    made(model, [FIRST], layers=[0])
    with torch.no_grad():
        find_decoder(model).weight(0)[0, 0] += 0.1
    before = snapshot(model)
    how = {"moments": moments_of(model), "templates": ContextTemplates(), "values": ValueSettings(steps=3)}
    with edited(model, TOKENIZER, [SECOND], MEMIT(20.0), LAYERS, progress=False, **how):
        assert not same(model, before)
    assert same(model, before)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, None])
def test_edited_puts_the_model_back(error):
    model = make_llama(torch.bfloat16)
    earlier = made(model, [FIRST])
    before = snapshot(model)
    how = {"moments": moments_of(model), "templates": ContextTemplates(), "values": ValueSettings(steps=3)}

    def inside():
        with edited(model, TOKENIZER, [SECOND], MEMIT(20.0), LAYERS, progress=False, **how) as result:
            assert not same(model, before)
            made(model, [THIRD], layers=[1])
            earlier.remove()
            if error is not None:
                raise error
        return result

    if error is not None:
        with pytest.raises(error):
            inside()
    else:
        result = inside()
        assert not result.is_inserted
        assert result.before["efficacy_score_n"] == 1
        assert result.before["efficacy_magnitude"] != result.after["efficacy_magnitude"]
    assert same(model, before)
    assert earlier.is_inserted
    earlier.remove()
    assert same(model, snapshot(make_llama(torch.bfloat16)))


def test_an_edit_is_computed_in_the_precision_of_the_weights():
    plain, within = make_gpt2(), make_gpt2()
    how = {"moments": None, "texts": SENTENCES, "second_moment": SecondMomentSettings(60, cache_dir=None)}
    made(plain, [FIRST], **how)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made(within, [FIRST], **how)
        assert torch.is_autocast_enabled("cpu")
    assert same(within, snapshot(plain))


def test_an_edit_that_is_refused_leaves_earlier_ones():
    model = make_gpt2()
    first = made(model, [FIRST])
    before = snapshot(model)
    with pytest.raises(EditError, match="no edits to make"):
        made(model, [])
    with pytest.raises(EditError, match="must hold layers"):
        made(model, [SECOND], moments={})
    assert same(model, before)
    first.remove()


def test_a_copy_of_the_model_goes_on_by_itself():
    model = make_gpt2()
    first = made(model, [FIRST])
    copied = copy.deepcopy(model)
    second = made(copied, [SECOND])
    first.remove()
    assert same(model, snapshot(make_gpt2()))
    second.remove()
    first.remove(copied)
    assert same(copied, snapshot(make_gpt2()))
