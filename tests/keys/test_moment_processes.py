"""The pass for second moments in several processes: each does its share, and all know the same sums."""

import shutil

import pytest
import torch
from torch import distributed
from torch.distributed.fsdp import fully_shard

from lightning_edit.errors import EditError
from lightning_edit.keys import moment_pass
from lightning_edit.storage.cache import Cache
from tests.killing import CONTEXT
from tests.moment_passes import FEW, Watched, close, equal, kinds


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(moment_pass, "MAX_TOKENS_CPU", FEW)


def share(rank, count, folder, what):
    """One of several processes."""
    torch.set_num_threads(1)
    moment_pass.MAX_TOKENS_CPU, moment_pass.KEEP_SECONDS = FEW, 0.0
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet-{what}", rank=rank, world_size=count)
    try:
        result = JOBS[what](rank, folder)
        torch.save(result, f"{folder}/{what}-{rank}.pt")
    finally:
        distributed.destroy_process_group()


def all_alike(rank, folder):
    watched = Watched(torch.float64)
    return watched.moments(), len(watched.batches)


def through_a_cache(rank, folder):
    first, again = Watched(torch.float64), Watched(torch.float64)
    if rank == 1:
        # One finds less than the others, as on a disk of its own.
        folder = f"{folder}/own"
    moments = first.moments(f"{folder}/cache")
    for path in list(Cache(f"{folder}/cache").folder.glob("*"))[:rank]:
        path.unlink()
    distributed.barrier()
    return moments, again.moments(f"{folder}/cache"), len(first.batches), len(again.batches)


def with_a_failure(rank, folder):
    at, then = (2, interrupted_by_a_fault) if rank == 1 else (None, None)
    try:
        Watched(torch.float64, at=at, then=then).moments(f"{folder}/cache")
    except (EditError, ValueError) as error:
        message = str(error)
    distributed.barrier()
    again = Watched(torch.float64)
    return message, again.moments(f"{folder}/cache"), len(again.batches)


def interrupted_by_a_fault():
    raise ValueError("a fault of this process")


def divided(rank, folder):
    def attempt(**changes):
        watched = Watched(torch.float64, **changes)
        for block in watched.model.transformer.h:
            fully_shard(block)
        fully_shard(watched.model)
        return watched.moments(f"{folder}/cache-{rank}"), len(watched.batches)

    found = []
    for lost in (False, True):
        with pytest.raises(ValueError, match="a fault of this process"):
            attempt(at=3, then=interrupted_by_a_fault)
        if lost and rank == 1:
            shutil.rmtree(f"{folder}/cache-1")
        found.append(attempt())
        shutil.rmtree(f"{folder}/cache-{rank}")
    return found


JOBS = {job.__name__: job for job in (all_alike, through_a_cache, with_a_failure, divided)}


def together(folder, what, count):
    processes = [CONTEXT.Process(target=share, args=(rank, count, str(folder), what)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * count
    return [torch.load(folder / f"{what}-{rank}.pt", weights_only=True) for rank in range(count)]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.slow
def test_processes_share_the_batches_and_know_the_same_sums(tmp_path, count):
    alone = Watched(torch.float64)
    expected = alone.moments()
    found = together(tmp_path, "all_alike", count)
    assert sum(batches for _, batches in found) == len(alone.batches)
    assert max(batches for _, batches in found) < len(alone.batches)
    assert all(equal(moments, found[0][0]) for moments, _ in found)
    assert close(found[0][0], expected)


def test_processes_agree_on_what_is_missing_in_the_cache(tmp_path):
    expected = Watched(torch.float64).moments()
    (first, again, _, more), (other_first, other_again, _, other_more) = together(tmp_path, "through_a_cache", 2)
    assert equal(first, other_first)
    assert equal(again, other_again)
    assert close(again, expected)
    assert more > 0
    assert other_more > 0


def test_a_process_that_fails_stops_the_others_and_the_next_attempt_goes_on(tmp_path):
    alone = Watched(torch.float64)
    expected = alone.moments()
    (told, moments, batches), (failed, other, other_batches) = together(tmp_path, "with_a_failure", 2)
    assert failed == "a fault of this process"
    assert "Process 1 failed, so this one stops too. It said: ValueError: a fault of this process" in told
    assert equal(moments, other)
    assert close(moments, expected)
    assert batches == 1
    assert other_batches == len(alone.batches) // 2 - 1
    assert kinds(tmp_path / "cache") == ["second-moment", "second-moment"]


@pytest.mark.slow
def test_all_processes_of_a_divided_model_go_through_the_same_batches_together(tmp_path):
    alone = Watched(torch.float64)
    expected, batches = alone.moments(), len(alone.batches)
    for (gone_on, rest), (anew, all_of_them) in together(tmp_path, "divided", 2):
        assert close(gone_on, expected)
        assert close(anew, expected)
        # Where one of them has lost the sums, all begin again.
        assert (rest, all_of_them) == (batches - 2, batches)
