"""Values that were found before: the same bits, told in the same words, from any of several folders."""

import logging

import pytest
import torch

from lightning_edit.asking.questions import as_question
from lightning_edit.loading.fingerprints import fingerprint_model, fingerprint_tokenizer
from lightning_edit.storage.cache import Cache
from lightning_edit.values.cache import cached_values
from lightning_edit.values.vectors import Values
from tests.cached_run import Run, same_bits
from tests.small_models import make_request


def test_texts_that_run_together_the_same_are_told_apart(tmp_path):
    for subject, prompt in (("ab", "{} c"), ("a", "b{} c"), ("a", "{}b c")):
        run = Run(tmp_path)
        run.requests = [make_request(subject=subject, prompt=prompt)]
        assert not run.values()[1]


def test_what_was_told_is_told_again_number_for_number(tmp_path):
    computed, found = Run(tmp_path), Run(tmp_path)
    computed.values()
    assert found.values()[1]
    assert len(computed.told) == 2
    assert {"loss", "nll", "kl", "weight_decay"} == set(computed.told[0][3])
    assert repr(found.told) == repr(computed.told)


def test_no_digit_of_what_was_told_is_lost(tmp_path):
    values, told = Run().values()[0], []

    def compute(report):
        for number in (0.1 + 0.2, 1 / 3, 5e-324, 1.7e308, float("-inf"), -0.0, 7):
            report("values (edits)", number, 7, loss=number)
        return values

    def report(*call, **figures):
        told.append((*call, figures))

    for _ in range(2):
        cached_values([Cache(tmp_path)], {}, [make_request()], compute, report)
    assert len(told) == 14
    assert repr(told[7:]) == repr(told[:7])


def test_a_loss_that_is_no_number_is_told_and_warned_of_again(tmp_path, caplog):
    runs = [Run(tmp_path), Run(tmp_path)]
    for run in runs:
        with torch.no_grad():
            run.model.transformer.ln_f.bias[0] = float("nan")
    first, _ = runs[0].values()
    warned = [record.getMessage() for record in caplog.records]
    caplog.clear()
    second, hit = runs[1].values()
    assert hit
    assert not first.finite.any()
    assert same_bits(first, second)
    assert "nan" in repr(runs[0].told)
    assert repr(runs[1].told) == repr(runs[0].told)
    assert len(warned) == 3
    assert [record.getMessage() for record in caplog.records] == warned


def test_every_folder_gets_the_values_and_those_that_lack_them_get_them_later(tmp_path):
    journal, shared_folder = tmp_path / "journal", tmp_path / "shared"
    first, hit = Run(journal, shared_folder).values()
    assert not hit
    (kept,) = journal.iterdir()
    assert [file.name for file in shared_folder.iterdir()] == [kept.name]
    kept.unlink()
    again, hit = Run(journal, shared_folder).values()
    assert hit
    assert same_bits(first, again)
    assert same_bits(first, Run(journal).values()[0])
    assert kept.is_file()


def test_a_damaged_file_is_passed_over_and_made_whole_from_the_next_folder(tmp_path, caplog):
    journal, shared_folder = tmp_path / "journal", tmp_path / "shared"
    first, _ = Run(journal, shared_folder).values()
    (file,) = journal.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    again, hit = Run(journal, shared_folder).values()
    assert hit
    assert same_bits(first, again)
    assert [str(file) in record.getMessage() for record in caplog.records] == [True]
    assert Run(journal).values()[1]


def test_a_folder_that_takes_no_file_loses_no_values(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    run = Run(tmp_path / "file" / "journal", tmp_path / "shared")
    first, hit = run.values()
    assert not hit
    again, hit = run.values()
    assert hit
    assert same_bits(first, again)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "cannot be stored" in caplog.text


def test_nothing_is_kept_of_a_search_that_was_broken_off(tmp_path):
    def compute(report):
        report("values (edits)", 1, 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_values([Cache(tmp_path)], {}, [make_request()], compute)
    assert list(tmp_path.iterdir()) == []


def test_the_file_tells_what_it_was_made_from(tmp_path):
    run = Run(tmp_path)
    run.model.name_or_path = "models/random"
    run.values()
    (entry,) = run.caches[0].entries()
    shown = {name: entry.described[name] for name in ("model", "module", "edits", "first")}
    assert shown == {
        "model": "models/random",
        "module": "transformer.h.1.mlp.c_proj",
        "edits": 3,
        "first": "Eiffel Tower -> Rome",
    }
    assert entry.described["parts"]["base weights and configuration"] == fingerprint_model(run.model)
    assert entry.described["parts"]["tokenizer"] == fingerprint_tokenizer(run.tokenizer)


@pytest.mark.parametrize("sentences", [True, False])
def test_in_a_chat_values_know_what_stands_before_an_answer_in_plain_text(sentences, tmp_path):
    def look(separator):
        request = as_question(make_request(separator=separator), sentences=sentences)
        return cached_values([Cache(tmp_path)], {}, [request], lambda report: made)[1]

    numbers = torch.zeros(1)
    made = Values(torch.zeros(1, 2), torch.zeros(1, 2), *[numbers] * 4, torch.ones(1, dtype=torch.bool))
    assert [look(None), look(' "'), look(" "), look(' "')] == [False, False, True, True]
