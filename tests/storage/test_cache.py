"""Kept results: the same bits come back or none at all, whatever happens to their files."""

import json
import logging
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lightning_edit.storage.cache import FORMAT, LEFTOVER_SECONDS, OLD_FORMAT, Cache, DamagedError, delete, read_tensors

NAME, OTHER = "0" * 32, "a" * 32
TENSORS = {
    "wide": torch.tensor([[0.1, float("nan")], [float("inf"), -0.0]], dtype=torch.float64),
    "half": torch.tensor([1.5, -2.0, 3.0], dtype=torch.bfloat16),
    "flags": torch.tensor([True, False]),
    "counts": torch.tensor(7),
    "empty": torch.empty(0, 3),
}
DESCRIBED = {"model": "gpt", "tokens": 12, "parts": {"text": "ü"}}


def same_bits(first, second):
    return first.keys() == second.keys() and all(
        a.dtype == b.dtype and a.shape == b.shape and bytes_of(a) == bytes_of(b)
        for a, b in ((first[key], second[key]) for key in first)
    )


def bytes_of(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def kept(tmp_path, tensors=TENSORS, name=NAME):
    cache = Cache(tmp_path)
    cache.write("values", name, tensors, DESCRIBED)
    return cache, cache.path("values", name)


def test_what_is_written_comes_back_bit_for_bit_and_is_an_ordinary_safetensors_file(tmp_path):
    cache, path = kept(tmp_path / "deep" / "cache")
    assert same_bits(cache.read("values", NAME), TENSORS)
    assert path.name == f"values-{NAME}.safetensors"
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["described"]) == DESCRIBED
        assert file.metadata()["when"][:4] == time.strftime("%Y", time.gmtime())


def test_views_of_one_tensor_that_is_not_contiguous(tmp_path):
    tensors = {"transposed": torch.arange(6.0).reshape(2, 3).T}
    cache, _ = kept(tmp_path, tensors)
    assert same_bits(cache.read("values", NAME), tensors)


def test_what_was_never_written_is_absent_without_a_word(tmp_path, caplog):
    cache, _ = kept(tmp_path)
    assert cache.read("values", OTHER) is None
    assert cache.read("second-moment", NAME) is None
    assert Cache(tmp_path / "none").read("values", NAME) is None
    assert not caplog.records
    assert not (tmp_path / "none").exists()


def test_no_single_bit_can_change_unnoticed(tmp_path):
    _, path = kept(tmp_path)
    data = path.read_bytes()
    read_tensors(path)
    for place in range(len(data)):
        altered = bytearray(data)
        altered[place] ^= 1 << (place % 8)
        path.write_bytes(altered)
        with pytest.raises(DamagedError):
            read_tensors(path)


def test_no_cut_can_go_unnoticed(tmp_path):
    _, path = kept(tmp_path)
    data = path.read_bytes()
    for end in range(0, len(data), 7):
        path.write_bytes(data[:end])
        with pytest.raises(DamagedError):
            read_tensors(path)


def old_format(path):
    save_file({"second_moment": torch.eye(2)}, path, {"second_moment": "{}"})


def other_format(path):
    save_file({"second_moment": torch.eye(2)}, path, {"format": "lightning-edit cache 9"})


def without_metadata(path):
    save_file({"second_moment": torch.eye(2)}, path)


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("nothing of the kind, but longer than a header's length"),
    "appended": lambda path: path.write_bytes(path.read_bytes() + b"0"),
    "renamed": lambda path: path.with_name(f"values-{OTHER}.safetensors").replace(path),
    "old format": old_format,
    "other format": other_format,
    "without metadata": without_metadata,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_gives_a_warning_and_is_replaced(tmp_path, caplog, damage):
    kept(tmp_path, name=OTHER)
    cache, path = kept(tmp_path)
    damage(path)
    assert cache.read("values", NAME) is None
    assert [str(path) in record.getMessage() for record in caplog.records] == [True]
    kept(tmp_path)
    assert same_bits(cache.read("values", NAME), TENSORS)
    assert len(caplog.records) == 1


def test_a_folder_that_takes_no_file_is_said_once_and_nothing_else_happens(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    cache = Cache(tmp_path / "file" / "cache")
    for name in (NAME, OTHER):
        cache.write("values", name, TENSORS, DESCRIBED)
        assert cache.read("values", name) is None
    (record,) = caplog.records
    assert str(cache.path("values", NAME)) in record.getMessage()
    assert "cannot be stored" in record.getMessage()
    assert cache.entries() == cache.leftovers() == cache.foreign() == []


def test_a_full_disk_keeps_what_was_there_and_leaves_no_rubbish(tmp_path, caplog):
    resource = pytest.importorskip("resource")
    cache, _ = kept(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        for name in (OTHER, NAME):
            cache.write("values", name, {"large": torch.ones(100_000)}, DESCRIBED)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ["cannot be stored" in record.getMessage() for record in caplog.records] == [True]
    assert same_bits(cache.read("values", NAME), TENSORS)
    assert [path.name for path in tmp_path.iterdir()] == [f"values-{NAME}.safetensors"]


def test_entries_are_told_newest_first_with_what_they_were_made_from(tmp_path):
    cache, first = kept(tmp_path)
    time.sleep(0.01)
    cache.write("second-moment", NAME, TENSORS, {"tokens": 3})
    newest, oldest = cache.entries()
    assert (newest.kind, newest.described, newest.problem) == ("second-moment", {"tokens": 3}, None)
    assert (oldest.path, oldest.kind, oldest.described) == (first, "values", DESCRIBED)
    assert oldest.size == first.stat().st_size
    assert abs(newest.made - time.time()) < 60


@pytest.mark.parametrize("damage", ["empty", "text"])
def test_entries_with_a_damaged_header_are_told_as_such(tmp_path, damage):
    cache, path = kept(tmp_path)
    DAMAGES[damage](path)
    (entry,) = cache.entries()
    assert (entry.kind, entry.problem) == ("values", "its header is damaged")


DEEP = {"format": FORMAT, "name": "NAME", "when": "2026-01-01T00:00:00+00:00", "described": "[" * 5000}
HEADERS = {
    "deep": "[" * 5000,
    "a list": "[]",
    "metadata that are a number": '{"__metadata__": 5}',
    "metadata that are a list": '{"__metadata__": [1, 2]}',
    "a number for a text": '{"__metadata__": {"format": 5}}',
    "a text that is deep": '{"__metadata__": ' + json.dumps(DEEP) + "}",
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_hostile_header_is_damage(header, tmp_path, caplog):
    cache = Cache(tmp_path)
    path = cache.path("values", NAME)
    content = HEADERS[header].replace("NAME", path.name).encode()
    path.write_bytes(len(content).to_bytes(8, "little") + content)
    [entry] = cache.entries()
    assert entry.problem == "its header is damaged"
    assert cache.read("values", NAME) is None
    assert "cannot be used" in caplog.text


@pytest.mark.parametrize("damage", ["old format", "without metadata"])
def test_entries_of_the_older_format_are_told_as_such(tmp_path, damage):
    cache, path = kept(tmp_path)
    DAMAGES[damage](path)
    assert [entry.problem for entry in cache.entries()] == [OLD_FORMAT]


def test_leftovers_are_temporary_folders_that_rest_for_an_hour(tmp_path):
    cache, path = kept(tmp_path)
    long_ago = time.time() - LEFTOVER_SECONDS - 10
    for name in ("young", "old", "busy"):
        folder = tmp_path / f".{path.name}.{name}"
        folder.mkdir()
        (folder / path.name).write_text("half")
        if name != "young":
            os.utime(folder / path.name, (long_ago, long_ago))
            os.utime(folder, (long_ago, long_ago))
    (tmp_path / f".{path.name}.busy" / path.name).write_text("more")
    assert [folder.suffix for folder in cache.leftovers()] == [".old"]
    assert cache.foreign() == []
    delete(cache.leftovers()[0])
    assert cache.leftovers() == []
    assert len(cache.entries()) == 1


def test_what_is_not_of_the_cache_is_foreign(tmp_path):
    cache, path = kept(tmp_path)
    for name in ("notes.txt", "values-0.safetensors", f".{path.name}", path.name.upper()):
        (tmp_path / name).write_text("mine")
    assert [found.name for found in cache.foreign()] == sorted(
        ["notes.txt", "values-0.safetensors", f".{path.name}", path.name.upper()]
    )
    assert [entry.path for entry in cache.entries()] == [path]


def numbers(name):
    return {"numbers": torch.full((200, 50), float(int(name, 16) % 97), dtype=torch.float64)}


def work(folder, seed, ready, results):
    """Reads, writes, lists and clears the same few entries for a second or more."""
    draw, problems, hits = random.Random(seed), [], 0
    handler = logging.Handler()
    handler.emit = lambda record: problems.append(record.getMessage())
    logging.getLogger("lightning_edit").addHandler(handler)
    cache = Cache(folder)
    ready.wait()
    end = time.monotonic() + 1
    # On a busy machine longer, until enough was read.
    while (now := time.monotonic()) < end or (hits <= 10 and now < end + 30):
        name, action = draw.choice([NAME, OTHER]), draw.choice(["read", "read", "write", "list", "clear"])
        if action == "read":
            found = cache.read("values", name)
            hits += found is not None
            if found is not None and not same_bits(found, numbers(name)):
                problems.append("wrong numbers")
        elif action == "write":
            # Descriptions of different lengths move the numbers to another place in the file.
            cache.write("values", name, numbers(name), {"seed": "x" * draw.randrange(5000)})
        elif action == "list":
            problems += [entry.problem for entry in cache.entries() if entry.problem]
            problems += [path.name for path in cache.foreign() + cache.leftovers()]
        elif draw.random() < 0.3:
            for entry in cache.entries():
                delete(entry.path)
    results.put((problems, hits))


@pytest.mark.slow
def test_processes_that_read_write_and_clear_at_once_see_no_error_and_no_wrong_number(tmp_path):
    # One server imports everything once; new processes from nothing would take half a minute.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ready, results = context.Barrier(6), context.Queue()
    workers = [context.Process(target=work, args=(tmp_path, seed, ready, results)) for seed in range(5)]
    for worker in workers:
        worker.start()
    ready.wait(60)
    time.sleep(0.4)
    os.kill(workers.pop().pid, signal.SIGKILL)
    told = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert [problems for problems, _ in told] == [[]] * 4
    assert all(hits > 10 for _, hits in told)
    for entry in Cache(tmp_path).entries():
        assert same_bits(read_tensors(entry.path), numbers(entry.path.stem[-32:]))
