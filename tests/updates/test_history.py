"""The history of a run: what adds up, is forgotten, found and removed."""

import pytest
import torch

from lightning_edit import MEMIT, EditError
from lightning_edit.asking.questions import as_question
from lightning_edit.loop.replaced_edits import valid_columns
from lightning_edit.solvers import RECT
from lightning_edit.updates.history import History
from lightning_edit.updates.layer_update import LayerUpdate
from tests.histories import LAYERS, MAKERS, PAIRS, SUBJECTS, make_editor, run, same, simple, weights_of, write
from tests.small_models import make_factors, make_gpt2, make_llama, make_request


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("make_model", MAKERS)
def test_the_sum_without_the_last_updates_is_what_the_run_had_before_them(tmp_path, make_model, dtype):
    history, weights = run(tmp_path, make_model(dtype))
    base = make_model(dtype)
    for last in (1, 2, 3):
        again = weights_of(base, History(tmp_path).sum(without=set(range(last + 1, 4))))
        assert same(again, weights[last - 1])
    assert not same(weights[1], weights[2])
    assert history.sum(without={1, 2, 3}) == {}


@pytest.mark.parametrize("changes", [{"solver": MEMIT(0.1)}, {"post_processing": [RECT(0.4)]}], ids=["solver", "dense"])
def test_bits_survive_sums_that_become_dense_and_updates_that_are(tmp_path, changes):
    # 16 x 24 weights: from rank 10 on the sum is dense.
    batches = [[make_request(subject=s, target_new=t) for s in SUBJECTS] for t in ("Rome", "Berlin", "London")]
    history, weights = run(tmp_path, make_gpt2(torch.float32), batches, **changes)
    assert (history.read(1).updates[0].factors.right is None) == ("post_processing" in changes)
    assert history.sum()[0].factors.right is None
    for last in (1, 2, 3):
        assert same(weights_of(make_gpt2(torch.float32), history.sum(range(last + 1, 4))), weights[last - 1])


def test_an_update_in_the_middle_is_left_out_of_the_sum(tmp_path):
    history, _ = run(tmp_path, make_gpt2(torch.float32))
    total = history.sum(without=[2])
    for layer in LAYERS:
        parts = [history.read(number).updates[layer].factors.dense() for number in (1, 3)]
        torch.testing.assert_close(total[layer].factors.dense(), sum(parts))


def test_a_layer_that_only_some_updates_edit_is_added_up_too(tmp_path):
    history = History(tmp_path)
    for number, layer in enumerate((1, 0, 1), start=1):
        update = {layer: LayerUpdate("m", "b", make_factors(6, 9, 1, number))}
        history.write(number, update, {layer: torch.randn(9, 1)}, [make_request()], {})
    total = history.sum()
    assert list(total) == [0, 1]
    torch.testing.assert_close(
        total[1].factors.dense(), make_factors(6, 9, 1, 1).dense() + make_factors(6, 9, 1, 3).dense()
    )
    assert list(history.sum(without=[2])) == [1]


def test_a_run_on_top_of_another_goes_on_from_its_sum(tmp_path):
    history, _ = run(tmp_path / "first", make_llama(torch.bfloat16), PAIRS[:2])
    start = history.sum()
    model = make_llama(torch.bfloat16)
    second, editor = History(tmp_path / "second"), make_editor(model)
    second.write_start(start, {"from": "first"})
    editor.weights.set({layer: update.factors for layer, update in start.items()})
    weights = write(second, 1, editor, PAIRS[2])
    assert same(weights_of(make_llama(torch.bfloat16), second.sum()), weights)
    assert same(weights_of(make_llama(torch.bfloat16), second.sum([1])), weights_of(make_llama(torch.bfloat16), start))
    with pytest.raises(EditError, match="holds updates already"):
        second.write_start(start)
    second.forget_after(0)
    assert second.sum() == {}


def test_updates_of_different_runs_are_not_added_up(tmp_path):
    history = simple(tmp_path, 1)
    other = {0: LayerUpdate("m", "another", make_factors(6, 9, 1))}
    history.write(2, other, {0: torch.randn(9, 1)}, [make_request()], {})
    with pytest.raises(EditError, match="Update 2 edits m of another model"):
        history.sum()


def test_forgotten_updates_are_written_again(tmp_path, caplog):
    history = simple(tmp_path)
    (tmp_path / "other.txt").write_text("stays")
    history.forget_after(1)
    assert history.numbers() == [1]
    assert (tmp_path / "other.txt").exists()
    assert not caplog.text
    history.write(2, {0: LayerUpdate("m", "b", make_factors(6, 9, 1))}, {0: torch.randn(9, 1)}, [make_request()], {})
    assert history.find(make_request()) == (2, 0, "Rome")
    assert history.find(make_request(subject="s2.0")) is None


def test_a_resumed_run_holds_what_was_removed_and_is_told(tmp_path, caplog):
    history = simple(tmp_path)
    history.set_removed({1, 2})
    assert History(tmp_path).removed() == {1, 2}
    history.forget_after(2)
    assert history.removed() == set()
    assert "Updates 1, 2 had been removed" in caplog.text


def test_the_latest_edit_of_a_fact_is_found_without_the_removed_ones(tmp_path):
    history = History(tmp_path)
    targets = [["Rome", "Oslo"], ["Bern", "Kiel"], ["Bonn", "Graz"]]
    subjects = [["a", "b"], ["b", "c"], ["a", "c"]]
    assert history.find(make_request(subject="a")) is None
    for number, (names, new) in enumerate(zip(subjects, targets, strict=True), start=1):
        requests = [make_request(subject=s, target_new=t) for s, t in zip(names, new, strict=True)]
        update = {0: LayerUpdate("m", "b", make_factors(6, 9, 2, number))}
        history.write(number, update, {0: torch.randn(9, 2)}, requests, {})
        assert history.find(requests[0]) == (number, 0, new[0])
    for found in (history, History(tmp_path)):
        assert found.find(make_request(subject="a")) == (3, 0, "Bonn")
        assert found.find(make_request(subject="b")) == (2, 0, "Bern")
        assert found.find(make_request(subject="c")) == (3, 1, "Graz")
        assert found.find(make_request(subject="a", prompt="{} is")) is None
    history.set_removed([3])
    left = [history.find(make_request(subject=subject)) for subject in "abc"]
    assert left == [(1, 0, "Rome"), (2, 0, "Bern"), (2, 1, "Kiel")]


def test_an_edit_is_known_by_its_record_however_it_was_asked(tmp_path):
    plain, other = make_request(), make_request(question="Where does {} stand?")
    asked, older = as_question(other), make_request(prompt="Where does {} stand?")
    for number, request in enumerate((plain, asked, older), start=1):
        history = History(tmp_path / str(number))
        update = {0: LayerUpdate("m", "b", make_factors(6, 9, 2, number))}
        history.write(1, update, {0: torch.randn(9, 1)}, [request], {})
    kept = [History(tmp_path / str(number)) for number in (1, 2, 3)]
    assert [history.find(asked) is not None for history in kept] == [True, True, True]
    assert [history.find(plain) is not None for history in kept] == [True, True, False]
    # Of an earlier version only the question is known.
    assert [history.find(as_question(plain)) is not None for history in kept] == [True, True, False]
    (edit,) = kept[1].record(1).edits
    assert (edit["prompt"], edit["plain_prompt"]) == ("Where does {} stand?", plain.prompt)
    assert "plain_prompt" not in kept[0].record(1).edits[0]

    def valid(*numbers):
        """Which edits count where runs follow each other, the latest first."""
        histories = [History(tmp_path / str(number), until=1) for number in numbers]
        return [columns[1] for columns in valid_columns(histories)]

    assert valid(2, 1) == valid(1, 2) == valid(2, 3) == [[0], []]
    assert valid(3, 1) == valid(1, 3) == [[0], [0]]


def test_a_broken_note_of_what_is_removed_is_refused(tmp_path):
    history = simple(tmp_path)
    for text in ("{", "[]", '{"removed": ["a"]}', "{}"):
        (tmp_path / "removed.json").write_text(text)
        with pytest.raises(EditError, match=r'removed\.json should read \{"removed": \[numbers'):
            history.removed()
