"""How far a run without some updates is, against runs that never made them."""

import io

import pytest
import torch
from rich.console import Console

from lightning_edit import EMMET, MEMIT, OutputMEMIT, ValueSettings
from lightning_edit.commands.updates import show_change
from lightning_edit.datamodules import TinyWorld
from lightning_edit.editor import Editor
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.keys.layer_stats import SecondMomentSettings, prepare_second_moments
from lightning_edit.loading.pretrained import load_model
from lightning_edit.models.decoder import find_decoder
from lightning_edit.solvers import EditProblem, Factors
from lightning_edit.updates.distance import first_order_distance
from lightning_edit.updates.edited_weights import EditedWeights
from lightning_edit.updates.files.update_file import StoredUpdate
from lightning_edit.updates.files.update_record import UpdateRecord
from lightning_edit.updates.history import History
from lightning_edit.updates.layer_update import LayerUpdate
from lightning_edit.updates.undo import Change
from tests.small_runs import fit, module


def linear_run(left_out=(), updates=5, preserve=False):
    """Updates of a linear map to fixed targets, W K_j -> Z_j, each on the map as it is then."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    weight, shared, kept, previous = draw(8, 12), draw(12, 1), [], torch.zeros(12, 12, dtype=torch.float64)
    for number in range(1, updates + 1):
        # Keys that have much in common, as those of one kind of prompt do.
        keys, targets = shared + draw(12, 2), draw(8, 2)
        if number in left_out:
            continue
        moment = previous if preserve else None
        problem = EditProblem(keys, targets - weight @ keys, torch.eye(12, dtype=torch.float64), moment)
        factors = EMMET(1.0, emmet_lambda=0.1)(problem)
        weight, previous = weight + factors.dense(), previous + keys @ keys.T
        record = UpdateRecord(number, "", [], {}, {}, {})
        kept.append(StoredUpdate(record, {0: LayerUpdate("m", "b", factors)}, {0: keys}))
    return kept


def true_distance(left_out, **changes):
    deltas = {s.record.number: s.updates[0].factors.dense() for s in linear_run(**changes)}
    ours = sum(delta for number, delta in deltas.items() if number not in left_out)
    rerun = sum(s.updates[0].factors.dense() for s in linear_run(left_out, **changes))
    return float((ours - rerun).norm() / rerun.norm())


@pytest.mark.parametrize("left_out", [{1}, {3}, {1, 2}, {2, 4}, {1, 5}])
def test_the_distance_is_exact_where_the_model_is_linear(left_out):
    distance = first_order_distance(linear_run(), left_out)
    assert distance == {0: pytest.approx(true_distance(left_out), rel=1e-9)}
    assert distance[0] > 0.01


def test_the_distance_is_zero_for_the_last_updates_and_for_all():
    assert first_order_distance(linear_run(), {4, 5}) == {0: 0.0}
    assert first_order_distance(linear_run(), {1, 2, 3, 4, 5}) == {0: 0.0}


def test_the_distance_is_near_where_earlier_keys_are_preserved():
    distance = first_order_distance(linear_run(preserve=True), {2})[0]
    assert distance == pytest.approx(true_distance({2}, preserve=True), rel=0.5)
    assert distance != pytest.approx(true_distance({2}, preserve=True), rel=1e-9)


def test_the_distance_cannot_be_told_for_later_dense_updates():
    stored = linear_run()
    dense = Factors(stored[3].updates[0].factors.dense())
    stored[3] = StoredUpdate(stored[3].record, {0: LayerUpdate("m", "b", dense)}, stored[3].keys)
    assert first_order_distance(stored, {2}) == {0: "dense updates"}
    assert first_order_distance(stored, {4}) == {0: pytest.approx(true_distance({4}), rel=1e-9)}
    assert first_order_distance(stored, {5}) == {0: 0.0}


def test_the_distance_cannot_be_told_where_each_output_direction_is_written_in_its_own_way(tmp_path):
    distances = []
    for solver in (MEMIT(1.0, ridge=0.01), OutputMEMIT(1.0, ridge=0.01, sensitivity=1e-6)):
        folder = fit(tmp_path, module(solver=solver, edits_per_update=1), TinyWorld(edits=3))
        distances.append(History(folder / "updates").distance([1]))
    assert 0 < distances[0][0] < 1
    assert distances[1] == {0: "OutputMEMIT, which writes each direction of the output in its own way"}
    # Files of earlier versions say it by the solver alone.
    stored = [History(folder / "updates").read(number) for number in (1, 2, 3)]
    for update in stored:
        assert update.record.info.pop("no_writer") == "OutputMEMIT"
    assert first_order_distance(stored, {1}) == distances[1]


@pytest.mark.parametrize(("distance", "said"), [(0.125, True), ("values from Windows", False)])
def test_what_is_assumed_is_said_of_a_distance_alone(distance, said, tmp_path):
    console = Console(width=300, file=io.StringIO())
    show_change(tmp_path, Change([1], [2], 1, [], None, {"0": distance}, []), console)
    shown = console.file.getvalue()
    assert ("layer 0: 12.5%." if said else "layer 0: unknown for values from Windows.") in shown
    assert ("assumes the same value vectors" in shown) is said


@pytest.fixture(scope="module")
def tiny_moments(tiny_tokenizer):
    decoder, settings = find_decoder(load_model("tiny")), SecondMomentSettings(tokens=4000)
    return prepare_second_moments(decoder, tiny_tokenizer, None, [0], settings, EMMET(1.0, ridge=0.01), 0)


def tiny_run(folder, batches, tokenizer, moments, values=None):
    """A run on the embedded model, with value vectors that are given or found; returns those too."""
    weights, history, found = EditedWeights(find_decoder(load_model("tiny")), [0]), History(folder), []
    settings = ValueSettings(lr=0.5, steps=12)
    editor = Editor(weights, tokenizer, EMMET(1.0, ridge=0.01), [0], ContextTemplates(), settings, moments)
    for number, batch in enumerate(batches, start=1):
        found.append(editor.find_values(batch).z if values is None else values[number - 1])
        written = editor.write(batch, found[-1])
        updates = {0: LayerUpdate("m", "b", written.factors[0])}
        history.write(number, updates, written.keys, batch, written.figures)
    return history, found


@pytest.mark.slow
def test_the_distance_on_a_real_model_is_exact_for_the_same_values_and_below_that_of_a_new_run(
    tmp_path, tiny_tokenizer, tiny_moments
):
    requests, real = TinyWorld(edits=12).requests, (tiny_tokenizer, tiny_moments)
    batches = [requests[i : i + 4] for i in range(0, 12, 4)]
    history, values = tiny_run(tmp_path / "all", batches, *real)
    same_values, _ = tiny_run(tmp_path / "same", batches[1:], *real, values[1:])
    new, _ = tiny_run(tmp_path / "new", batches[1:], *real)
    ours, told = history.sum([1])[0].factors.dense(), history.distance([1])[0]

    def distance(other):
        theirs = other.sum()[0].factors.dense()
        return float((ours - theirs).norm() / theirs.norm())

    assert told == pytest.approx(distance(same_values), rel=1e-3)
    assert told < distance(new) < 3 * told
