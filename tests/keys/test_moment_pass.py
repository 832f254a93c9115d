"""The pass for second moments: in halves where memory is short, and from where it was left off."""

import logging
import os
import signal

import pytest
import torch

from lightning_edit.keys import moment_pass
from lightning_edit.keys.moment_pass import PartialSums
from lightning_edit.storage.cache import Cache
from tests.killing import CONTEXT
from tests.moment_passes import FEW, Watched, close, equal, kinds


@pytest.fixture(autouse=True)
def small_batches_kept_at_once(monkeypatch):
    monkeypatch.setattr(moment_pass, "MAX_TOKENS_CPU", FEW)
    monkeypatch.setattr(moment_pass, "KEEP_SECONDS", 0.0)


def full():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate much")


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def interrupted():
    raise KeyboardInterrupt


@pytest.mark.parametrize("room", [100, 40, 31])
@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_done_in_halves_and_nothing_counts_twice(monkeypatch, room):
    expected = Watched(torch.float64).moments()
    monkeypatch.setattr(moment_pass, "MAX_TOKENS_CPU", 1000)
    monkeypatch.setattr(moment_pass, "tokens_of_a_pass", lambda device: 1000)
    watched, done = Watched(torch.float64), []

    def look(_, args):
        tokens = args[0].shape[:2].numel()
        if tokens > room:
            full()
        done.append(tokens)

    # Memory ends in the middle of the pass, when lower layers' keys are known.
    watched.model.transformer.h[1].register_forward_pre_hook(look)
    assert close(watched.moments(), expected)
    assert watched.batches[0] == (12, 31)
    assert len(watched.batches) > len(done) > 180 // room


def test_a_single_text_that_does_not_fit_is_an_error():
    watched = Watched()
    watched.model.transformer.h[1].register_forward_pre_hook(lambda _, args: full() if args[0].shape[1] > 20 else None)
    with pytest.raises(torch.OutOfMemoryError):
        watched.moments()


def test_memory_that_is_short_only_once_changes_nothing():
    expected = Watched(torch.float64).moments()
    watched = Watched(torch.float64, at=2, then=full)
    assert close(watched.moments(), expected)


def work(folder, at, threads):
    """What is run in a process that kills itself."""
    moment_pass.MAX_TOKENS_CPU, moment_pass.KEEP_SECONDS = FEW, 0.0
    torch.set_num_threads(threads)
    Watched(at=at, then=killed).moments(folder)


@pytest.mark.slow
def test_a_killed_pass_goes_on_from_its_last_sums_to_the_same_bits(tmp_path):
    undisturbed = Watched()
    expected = undisturbed.moments()
    process = CONTEXT.Process(target=work, args=(str(tmp_path), 5, torch.get_num_threads()))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert kinds(tmp_path) == ["second-moment-part"]
    again = Watched()
    assert equal(again.moments(tmp_path), expected)
    assert again.batches == undisturbed.batches[4:]
    assert kinds(tmp_path) == ["second-moment", "second-moment"]


@pytest.mark.parametrize("at", [1, 2, -1], ids=["first", "second", "last"])
def test_it_goes_on_wherever_it_was_interrupted_and_more_than_once(tmp_path, at):
    undisturbed = Watched()
    expected = undisturbed.moments()
    at %= len(undisturbed.batches) + 1
    for attempt in range(2):
        with pytest.raises(KeyboardInterrupt):
            Watched(at=at if attempt == 0 else 1, then=interrupted).moments(tmp_path)
    again = Watched()
    assert equal(again.moments(tmp_path), expected)
    assert again.batches == undisturbed.batches[at - 1 :]


@pytest.mark.parametrize(
    ("name", "value"), [("MAX_TOKENS_CPU", 30), ("KEEP_SECONDS", 3600.0)], ids=["other batches", "not yet kept"]
)
def test_it_begins_anew_where_nothing_that_fits_was_kept(tmp_path, monkeypatch, name, value):
    if name == "KEEP_SECONDS":
        monkeypatch.setattr(moment_pass, name, value)
    with pytest.raises(KeyboardInterrupt):
        Watched(at=4, then=interrupted).moments(tmp_path)
    monkeypatch.setattr(moment_pass, name, value)
    undisturbed, again = Watched(torch.float64), Watched(torch.float64)
    assert equal(again.moments(tmp_path), undisturbed.moments())
    assert again.batches == undisturbed.batches


def test_damaged_sums_are_not_used(tmp_path, caplog):
    with pytest.raises(KeyboardInterrupt):
        Watched(at=4, then=interrupted).moments(tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-8])
    undisturbed, again = Watched(), Watched()
    with caplog.at_level(logging.WARNING):
        assert equal(again.moments(tmp_path), undisturbed.moments())
    assert again.batches == undisturbed.batches
    assert str(path) in caplog.text


def test_sums_are_kept_no_more_often_than_asked_for(tmp_path, monkeypatch):
    kept = PartialSums(Cache(tmp_path), "0" * 32, {})
    assert kept.begin([[0, 1], [2]]) == {}
    kept.keep({"batches": torch.tensor(1)})
    monkeypatch.setattr(moment_pass, "KEEP_SECONDS", 3600.0)
    kept.keep({"batches": torch.tensor(2)})
    same = PartialSums(Cache(tmp_path), "0" * 32, {})
    assert same.begin([[0, 1], [2]])["batches"] == 1
    assert PartialSums(Cache(tmp_path), "0" * 32, {}).begin([[0], [1, 2]]) == {}
    same.forget()
    same.forget()
    assert kinds(tmp_path) == []
