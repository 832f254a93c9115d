"""The files of a history: what they keep, and that damage is recognized."""

import json
import resource

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_edit import EditError
from lightning_edit.solvers import Factors
from lightning_edit.updates.files.update_record import DamagedUpdateError
from lightning_edit.updates.history import History
from lightning_edit.updates.layer_update import LayerUpdate
from tests.histories import LAYERS, PAIRS, make_editor, simple
from tests.small_models import make_factors, make_gpt2, make_request


def test_what_is_read_is_what_was_written(tmp_path):
    model = make_gpt2(torch.float32)
    history, editor = History(tmp_path / "new"), make_editor(model)
    written = editor.write(PAIRS[0], editor.find_values(PAIRS[0]).z)
    updates = {layer: LayerUpdate(f"m{layer}", "b", factors) for layer, factors in written.factors.items()}
    info = {"model": "tiny", "list": [1]}
    assert history.write(1, updates, written.keys, PAIRS[0], written.figures, info, {0: "f"}) == history.path(1)
    stored = history.read(1)
    assert stored.record == history.record(1)
    assert stored.record.figures == written.figures
    assert stored.record.info == info
    assert stored.record.layers == {0: {"module": "m0", "base": "b", "after": "f"}, 1: {"module": "m1", "base": "b"}}
    fields = {"case_id": "1", "subject": "Danielle Darrieux", "prompt": PAIRS[0][1].prompt, "target_new": "Rome"}
    assert stored.record.edits[1] == fields
    for layer in LAYERS:
        assert torch.equal(stored.keys[layer], written.keys[layer])
        assert torch.equal(stored.updates[layer].factors.left, written.factors[layer].left)
        assert torch.equal(stored.updates[layer].factors.right, written.factors[layer].right)
        assert stored.keys[layer].dtype == torch.float64


def test_tensors_that_share_memory_are_written(tmp_path):
    keys = torch.randn(9, 1, dtype=torch.float64)
    update = LayerUpdate("m", "b", Factors(torch.randn(6, 1, dtype=torch.float64), keys.T))
    History(tmp_path).write(1, {0: update}, {0: keys}, [make_request()], {})
    assert torch.equal(History(tmp_path).read(1).updates[0].factors.right, keys.T)


def changed_tensor(path):
    tensors = load_file(path)
    tensors["left.0"][0, 0] += 1e-15
    save_file(tensors, path, metadata_of(path))


def changed_metadata(path):
    metadata = metadata_of(path)
    save_file(load_file(path), path, {**metadata, "edits": metadata["edits"].replace("Rome", "Oslo")})


def metadata_of(path):
    size = int.from_bytes(path.read_bytes()[:8], "little")
    return json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]


def flipped_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-8]), "cannot be read or is cut short"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read or is cut short"),
    "flipped": (flipped_byte, "holds other numbers than were written"),
    "tensor": (changed_tensor, "holds other numbers than were written"),
    "metadata": (changed_metadata, "says other things of itself"),
    "foreign": (lambda path: save_file({"a": torch.zeros(1)}, path), "is no stored update"),
    "another": (
        lambda path: path.write_bytes(path.with_name("update-00001.safetensors").read_bytes()),
        "holds update 1",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_recognized_and_named_and_the_others_still_add_up(tmp_path, kind):
    history = simple(tmp_path)
    damage, message = DAMAGE[kind]
    damage(history.path(2))
    for read in (lambda: history.read(2), history.sum, lambda: history.distance({1})):
        with pytest.raises(
            DamagedUpdateError, match=rf"^Update 2 is damaged: .*{message}.*can still be removed"
        ) as error:
            read()
        assert str(history.path(2)) in str(error.value)
        assert error.value.number == 2
    torch.testing.assert_close(history.sum([2])[0].factors.dense(), simple(tmp_path / "o").sum([2])[0].factors.dense())


def test_a_gap_is_refused(tmp_path):
    history = simple(tmp_path, 4)
    history.path(3).unlink()
    for use in (history.numbers, history.sum, lambda: History(tmp_path).find(make_request())):
        with pytest.raises(
            EditError, match=r"^Update 3 is missing: .*update-00003\.safetensors, but update 4 is there"
        ):
            use()


@pytest.mark.parametrize("number", [0, 2, 5])
def test_only_the_next_update_is_written(tmp_path, number):
    history = simple(tmp_path)
    before = history.path(2).read_bytes()
    update = {0: LayerUpdate("m", "b", make_factors(6, 9, 1))}
    with pytest.raises(EditError, match=rf"^Update {number} cannot be written .* holds 3 updates"):
        history.write(number, update, {0: torch.randn(9, 1)}, [make_request()], {})
    assert history.path(2).read_bytes() == before


def test_keys_must_be_those_of_the_edits(tmp_path):
    update = {0: LayerUpdate("m", "b", make_factors(6, 9, 2))}
    for keys in ({}, {0: torch.randn(9, 3)}):
        with pytest.raises(EditError, match=r"Update 1: layer 0 needs keys \(d_in, 2\)"):
            History(tmp_path).write(1, update, keys, [make_request()] * 2, {})
    assert History(tmp_path).numbers() == []


def test_numbers_that_are_not_there_are_refused(tmp_path):
    history = simple(tmp_path)
    for use in (history.sum, history.distance, history.set_removed):
        with pytest.raises(EditError, match=r"There is no update 0, 7: .* holds updates 1 to 3"):
            use([7, 2, 0])
    with pytest.raises(EditError, match=r"There is no update 1: .* holds no updates"):
        History(tmp_path / "none").read(1)


def test_a_full_disk_loses_nothing_and_says_so(tmp_path):
    history = simple(tmp_path)
    update = {0: LayerUpdate("m", "b", make_factors(200, 300, 5))}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match=r"update-00004\.safetensors could not be written"):
            history.write(4, update, {0: torch.randn(300, 1)}, [make_request()], {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"update-0000{n}.safetensors" for n in (1, 2, 3)]
    history.sum()
