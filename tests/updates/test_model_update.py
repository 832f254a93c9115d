"""Updates: in and out bit for bit, on disk and back, and never into the wrong model."""

import copy
import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lightning_edit import ModelUpdate, inserted
from lightning_edit.errors import EditError
from lightning_edit.models.decoder import find_decoder
from lightning_edit.solvers import Factors
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.updates.edited_weights import EditedWeights
from lightning_edit.updates.model_update import FIRST_FORMAT, LayerUpdate
from lightning_edit.updates.sums import add_factors, dense_update, is_sum, same_update, write_weight
from tests.small_models import make_factors, make_gpt2, make_llama

LAYERS = (0, 2)
MAKERS = [pytest.param(make_gpt2, id="Conv1D"), pytest.param(make_llama, id="Linear")]
PRECISIONS = [torch.float32, torch.bfloat16, torch.float16]


def make_update(base, seed=0, **info):
    """An update of two layers, one in factors and one dense."""
    decoder, layers = find_decoder(base), {}
    for layer in LAYERS:
        weight = decoder.weight(layer)
        factors = make_factors(*weight.shape, seed=seed + layer)
        factors = factors if layer == 0 else Factors(factors.dense())
        layers[layer] = LayerUpdate(decoder.names[layer], fingerprint(weight), factors)
    return ModelUpdate(layers, info)


def snapshot(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(model, before):
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def edited_names(update):
    return {f"{layer.module}.weight" for layer in update.layers.values()}


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("make_model", MAKERS)
def test_insert_writes_the_rounded_sum_and_remove_gives_the_old_bits(make_model, dtype):
    model = make_model(dtype)
    decoder, update, before = find_decoder(model), make_update(model), snapshot(model)
    sums = {layer: decoder.weight(layer).double() + update.layers[layer].factors.dense() for layer in LAYERS}
    update.insert(model)
    assert changed(model, before) == edited_names(update)
    assert all(torch.equal(decoder.weight(layer), sums[layer].to(dtype)) for layer in LAYERS)
    update.remove(model)
    assert not changed(model, before)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("make_model", MAKERS)
def test_a_saved_update_does_the_same_as_the_one_it_was_saved_from(tmp_path, make_model, dtype):
    model = make_model(dtype)
    other, update = copy.deepcopy(model), make_update(model, solver="MEMIT", edits=3)
    update.save(tmp_path / "new" / "update.safetensors")
    loaded = ModelUpdate.load(tmp_path / "new" / "update.safetensors")
    assert loaded.info == {"solver": "MEMIT", "edits": 3}
    before = snapshot(model)
    update.insert(model)
    loaded.insert(other)
    assert not changed(other, snapshot(model))
    loaded.remove(other)
    assert not changed(other, before)


def test_factors_survive_the_file_exactly(tmp_path):
    update = make_update(make_gpt2())
    update.save(tmp_path / "update.safetensors")
    loaded = ModelUpdate.load(tmp_path / "update.safetensors")
    assert list(loaded.layers) == list(LAYERS)
    for layer in LAYERS:
        mine, other = update.layers[layer], loaded.layers[layer]
        assert (other.module, other.base) == (mine.module, mine.base)
        assert other.factors.left.dtype == torch.float64
        assert torch.equal(other.factors.left, mine.factors.left)
    assert torch.equal(loaded.layers[0].factors.right, update.layers[0].factors.right)
    assert loaded.layers[2].factors.right is None


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
def test_a_model_saved_with_its_update_is_restored_from_its_base(tmp_path, dtype):
    base = make_gpt2(dtype)
    source, update = copy.deepcopy(base), make_update(base)
    update.insert(source)
    update.save(tmp_path / "update.safetensors")
    edited = copy.deepcopy(base)
    edited.load_state_dict(source.state_dict())
    loaded = ModelUpdate.load(tmp_path / "update.safetensors")
    with pytest.raises(EditError, match=r"not known here: call insert\(\) on the same object first, or pass"):
        loaded.remove(edited)
    loaded.remove(edited, base=base)
    assert not changed(edited, snapshot(base))


def test_a_wrong_base_is_refused():
    model = make_gpt2()
    update = make_update(model)
    update.insert(model)
    before = snapshot(model)
    with pytest.raises(EditError, match=r"^Layer 0 .* is not its base weight plus this update"):
        update.remove(model, base=make_gpt2(seed=1))
    assert not changed(model, before)


def other_weights(model):
    return make_gpt2(seed=1)


def other_precision(model):
    return copy.deepcopy(model).float()


def one_number_changed(model):
    other = copy.deepcopy(model)
    with torch.no_grad():
        find_decoder(other).weight(2)[0, 0] += 1e-9
    return other


@pytest.mark.parametrize("change", [other_weights, other_precision, one_number_changed])
def test_a_model_with_other_weights_is_refused_and_left_alone(change):
    model = make_gpt2()
    update, other = make_update(model, model="the base"), change(model)
    before = snapshot(other)
    with pytest.raises(EditError, match=r"^Layer [02] .* holds other weights .* \(the base\)\. Load that model"):
        update.insert(other)
    assert not changed(other, before)


def test_a_model_without_the_module_is_refused_and_left_alone():
    model, other = make_gpt2(), make_llama()
    before = snapshot(other)
    with pytest.raises(EditError, match=r"^LlamaForCausalLM has no module transformer\.h\.0\.mlp\.c_proj"):
        make_update(model).insert(other)
    assert not changed(other, before)


def test_weights_that_changed_after_insert_are_not_overwritten():
    model = make_gpt2()
    update = make_update(model)
    update.insert(model)
    with torch.no_grad():
        find_decoder(model).weight(2)[0, 0] += 1
    before = snapshot(model)
    with pytest.raises(EditError, match=r"^Layer 2 .* Remove later updates first\.$"):
        update.remove(model)
    assert not changed(model, before)


def test_an_update_is_removed_once():
    model = make_gpt2()
    update = make_update(model)
    update.insert(model)
    update.remove(model)
    with pytest.raises(EditError):
        update.remove(model)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_inserted_restores_the_weights_after_an_exception(error):
    model = make_llama(torch.bfloat16)
    update, before = make_update(model), snapshot(model)
    with pytest.raises(error), inserted(model, update) as edited:
        assert changed(edited, before) == edited_names(update)
        raise error
    assert not changed(model, before)
    with inserted(model, update):
        assert changed(model, before) == edited_names(update)
    assert not changed(model, before)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_updates_of_the_same_weights_add_up_and_are_removed_in_any_order(order, dtype):
    model = make_gpt2(dtype)
    decoder, before = find_decoder(model), snapshot(model)
    factors = [make_factors(16, 24, seed=seed) for seed in range(3)]
    name, base = decoder.names[1], decoder.weight(1).clone()
    updates = [ModelUpdate({1: LayerUpdate(name, fingerprint(base), part)}) for part in factors]
    for update in updates:
        update.insert(model)
    there = set(range(3))
    for number in order:
        total = sum(factors[other].dense() for other in sorted(there))
        assert torch.equal(decoder.weight(1), (base.double() + total).to(dtype))
        updates[number].remove(model)
        there.remove(number)
    assert not changed(model, before)
    assert not any(update.is_inserted for update in updates)


def test_an_update_that_comes_back_among_others_gives_the_same_bits():
    model = make_gpt2(torch.bfloat16)
    updates = [make_update(model), make_update(model, seed=10)]
    for update in updates:
        update.insert(model)
    both = snapshot(model)
    updates[0].remove(model)
    updates[0].insert(model)
    assert not changed(model, both)


def test_an_update_goes_into_a_model_once():
    model = make_gpt2()
    update = make_update(model)
    update.insert(model)
    before = snapshot(model)
    with pytest.raises(EditError, match="in the model already"):
        update.insert(model)
    assert not changed(model, before)


def test_weights_that_a_state_dict_gave_back_are_unedited():
    model = make_gpt2()
    update, before = make_update(model), snapshot(model)
    update.insert(model)
    model.load_state_dict(before)
    other = make_update(model, seed=10)
    other.insert(model)
    assert update.is_inserted
    with pytest.raises(EditError, match="This update is not in the model"):
        update.remove(model)
    other.remove(model)
    assert not changed(model, before)
    update.insert(model)
    update.remove(model)
    assert not changed(model, before)


def test_an_update_of_a_model_that_was_changed_over_another_one_is_removed_first():
    model = make_gpt2()
    first, before = make_update(model), snapshot(model)
    first.insert(model)
    with torch.no_grad():
        find_decoder(model).weight(0)[0, 0] += 1
    trained, second = snapshot(model), make_update(model)
    second.insert(model)
    with pytest.raises(EditError, match=r"Remove later updates first\.$"):
        first.remove(model)
    second.remove(model)
    assert not changed(model, trained)
    model.load_state_dict(before)
    first.insert(model)
    first.remove(model)
    assert not changed(model, before)


def test_a_copy_of_an_edited_model_can_be_restored_by_itself():
    model = make_gpt2()
    update, before = make_update(model), snapshot(model)
    update.insert(model)
    copied = copy.deepcopy(model)
    update.remove(copied)
    assert not changed(copied, before)
    assert changed(model, before) == edited_names(update)


def test_a_pickled_model_holds_nothing_of_the_library(tmp_path):
    model = make_gpt2()
    make_update(model).insert(model)
    torch.save(model, tmp_path / "model.pt")
    assert b"lightning_edit.updates" not in (tmp_path / "model.pt").read_bytes()
    # A whole model, which the line above has written; of a file of others this would run code.
    again = torch.load(tmp_path / "model.pt", weights_only=False)
    update, before = make_update(again), snapshot(again)
    update.insert(again)
    update.remove(again)
    assert not changed(again, before)


def broken_file(kind, path):
    update = make_update(make_gpt2())
    update.save(path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "header only":
        path.write_bytes(path.read_bytes()[:20])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "foreign":
        save_file({"weight": torch.zeros(2)}, path)
    elif kind == "other version":
        save_file(load_file(path), path, {"format": "lightning-edit update 0", "layers": json.dumps({}), "info": "{}"})
    elif kind == "absent":
        path.unlink()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "is not a safetensors file or is cut short"),
        ("header only", "is not a safetensors file or is cut short"),
        ("empty", "is not a safetensors file or is cut short"),
        ("foreign", "is not an update of this tool"),
        ("other version", "is not an update of this tool"),
        ("absent", "There is no update file at"),
    ],
)
def test_a_file_that_is_no_update_is_refused(tmp_path, kind, message):
    path = tmp_path / "update.safetensors"
    broken_file(kind, path)
    with pytest.raises(EditError, match=message) as error:
        ModelUpdate.load(path)
    assert str(path) in str(error.value)


def as_solvers_give_it(tensor):
    return tensor.T.contiguous().T


def as_mapped_files_give_it(tensor):
    room = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)
    return room[1:].view(tensor.shape).copy_(tensor)


@pytest.mark.parametrize("layout", [as_solvers_give_it, as_mapped_files_give_it])
def test_the_memory_layout_of_factors_changes_no_bit_of_the_update(layout):
    factors = make_factors(128, 512, 50)
    other = Factors(layout(factors.left), layout(factors.right))
    assert torch.equal(dense_update(factors), factors.left @ factors.right)
    assert torch.equal(dense_update(other), dense_update(factors))
    many = make_factors(128, 512, 100)
    for first, second in ((other, many), (many, other)):
        plain = [factors if part is other else part for part in (first, second)]
        assert torch.equal(add_factors(first, second).left, add_factors(*plain).left)
        assert add_factors(first, second).right is None
    weights = [torch.zeros(128, 512, dtype=torch.float64) for _ in range(2)]
    for weight, part in zip(weights, (factors, other), strict=True):
        write_weight(weight, torch.ones(128, 512), part)
    assert torch.equal(*weights)


def test_a_saved_update_may_be_read_by_whom_the_user_lets(tmp_path):
    update = make_update(make_gpt2())
    for mask, mode in ((0o022, 0o644), (0o077, 0o600)):
        known = os.umask(mask)
        try:
            update.save(tmp_path / "update.safetensors")
        finally:
            os.umask(known)
        assert (tmp_path / "update.safetensors").stat().st_mode & 0o777 == mode


def test_a_loaded_update_does_not_hang_on_its_file(tmp_path):
    update = make_update(make_gpt2())
    update.save(tmp_path / "update.safetensors")
    loaded = ModelUpdate.load(tmp_path / "update.safetensors")
    with (tmp_path / "update.safetensors").open("r+b") as file:
        file.write(bytes((tmp_path / "update.safetensors").stat().st_size))
    assert torch.equal(loaded.layers[0].factors.left, update.layers[0].factors.left)
    assert loaded.layers[0].factors.left.data_ptr() % 64 == 0


def test_check_refuses_another_model_without_changing_it():
    model, other = make_gpt2(), make_gpt2(seed=1)
    update, before = make_update(model), snapshot(model)
    update.check(model)
    assert not changed(model, before)
    with pytest.raises(EditError, match="holds other weights than the update was made for"):
        update.check(other)


@pytest.mark.parametrize(("ranks", "dense"), [((2, 3), False), ((4, 4), False), ((4, 5), True), ((9, 1), True)])
def test_a_sum_of_factors_is_dense_as_soon_as_that_is_smaller(ranks, dense):
    # 10 x 60 weights: factors of rank 8 take 560 numbers, of rank 9 630.
    first, second = (make_factors(10, 60, rank, seed) for seed, rank in enumerate(ranks))
    total = add_factors(first, second)
    assert torch.allclose(total.dense(), first.dense() + second.dense())
    assert (total.right is None) == dense
    with_dense = add_factors(Factors(first.dense()), second)
    assert torch.allclose(with_dense.dense(), total.dense())


@pytest.mark.parametrize(
    "make_model",
    [
        pytest.param(lambda dtype: make_gpt2(dtype, n_inner=16), id="Conv1D"),
        pytest.param(lambda dtype: make_llama(dtype, intermediate_size=16), id="Linear"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_square_weight_is_edited_the_right_way_round(make_model, dtype):
    model = make_model(dtype)
    decoder = find_decoder(model)
    module, keys = decoder.down_projection(1), torch.randn(5, 16, dtype=dtype)
    old, before = module(keys), snapshot(model)
    weights = EditedWeights(decoder, [1])
    factors = make_factors(16, 16)
    weights.add(1, factors)
    assert torch.allclose(module(keys) - old, factors.apply(keys.T.double()).T.to(dtype), rtol=1e-4, atol=1e-4)
    update = weights.update()
    assert changed(model, before) == edited_names(update) == {f"{decoder.names[1]}.weight"}
    update.remove(model)
    assert not changed(model, before)


def test_rounding_does_not_build_up_over_many_updates():
    model = make_gpt2(torch.bfloat16)
    decoder = find_decoder(model)
    base = decoder.weight(1).double()
    weights, parts = EditedWeights(decoder, [1]), [make_factors(16, 24, 1, seed) for seed in range(20)]
    for part in parts:
        weights.add(1, Factors(part.left / 1000, part.right))
    total = sum(part.dense() / 1000 for part in parts)
    assert torch.equal(decoder.weight(1), (base + total).to(torch.bfloat16))


def test_every_flipped_bit_of_a_file_is_found(tmp_path):
    path = tmp_path / "update.safetensors"
    make_update(make_gpt2(), solver="MEMIT").save(path)
    content = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    for position in [*range(0, header, 5), *range(header, len(content), len(content) // 100)]:
        bit = 1 << (position % 8)
        content[position] ^= bit
        path.write_bytes(content)
        content[position] ^= bit
        with pytest.raises(EditError):
            ModelUpdate.load(path)


def test_an_update_of_an_earlier_version_is_read(tmp_path):
    update, path = make_update(make_gpt2(), solver="MEMIT"), tmp_path / "update.safetensors"
    update.save(path)
    with safe_open(path, framework="pt") as file:
        metadata = {name: value for name, value in file.metadata().items() if name != "checksum"}
    save_file(load_file(path), path, {**metadata, "format": FIRST_FORMAT})
    assert ModelUpdate.load(path).info == {"solver": "MEMIT"}


def test_a_sum_that_another_machine_rounded_is_the_same_sum():
    base, half = torch.ones(1, 1), Factors(torch.full((1, 1), 2.0**-24, dtype=torch.float64))
    step = 2.0**-23  # from 1 to the next number in float32; the sum lies in the middle between them
    assert is_sum(torch.tensor([[1.0]]), base, half)
    assert is_sum(torch.tensor([[1.0 + step]]), base, half)
    assert not is_sum(torch.tensor([[1.0 + 2 * step]]), base, half)
    assert not is_sum(torch.tensor([[1.0 - step / 2]]), base, half)
    assert not is_sum(torch.tensor([[float("nan")]]), base, half)


def test_dense_sums_are_the_same_up_to_the_order_of_adding_up_and_factors_to_the_last_bit():
    factors = make_factors(6, 8)
    dense, noise = Factors(factors.dense()), torch.linspace(-1, 1, 48, dtype=torch.float64).reshape(6, 8)
    assert same_update(dense, Factors(dense.left * (1 + 1e-15 * noise)))
    assert same_update(factors, Factors(dense.left * (1 + 1e-15 * noise)))
    assert not same_update(dense, Factors(dense.left * (1 + 1e-9 * noise)))
    assert same_update(factors, factors)
    assert not same_update(factors, Factors(factors.left.nextafter(factors.left + 1), factors.right))


def test_a_saved_copy_is_not_inserted_twice_and_takes_the_update_out(tmp_path):
    model = make_gpt2()
    before, update = snapshot(model), make_update(model)
    update.save(tmp_path / "update.safetensors")
    update.insert(model)
    edited = snapshot(model)
    copied = ModelUpdate.load(tmp_path / "update.safetensors")
    with pytest.raises(EditError, match="in the model already"):
        copied.insert(model)
    assert not changed(model, edited)
    other = ModelUpdate(
        {**update.layers, 2: replace(update.layers[2], factors=Factors(-update.layers[2].factors.left))}
    )
    other.insert(model)
    copied.remove(model)
    other.remove(model)
    assert not changed(model, before)
    with pytest.raises(EditError, match="This update is not in the model"):
        update.remove(model)
