"""An edit that replaces another one is known by its record, also where each of them is asked in words of its own."""

from dataclasses import replace

import torch

from lightning_edit import ChatSettings
from lightning_edit.datamodules import TinyWorld
from tests.small_runs import Requests, fit, module

IN_CHAT = ChatSettings(contexts=["chat"], answers="sentences")


def edits():
    """Two edits, and one that replaces the first and brings another question."""
    first, second = (replace(edit, generation_prompts=()) for edit in TinyWorld(edits=2).requests)
    asked = replace(first, question=f"{first.prompt} which")
    again = replace(first, target_new=second.target_new, question=f"{first.prompt} what", case_id="again")
    return asked, second, again


def test_what_is_replaced_is_neither_made_nor_measured(chat_model, tmp_path):
    first, second, again = edits()
    made, data = module(model=chat_model, chat_settings=IN_CHAT, edits_per_update=3), Requests([first, second, again])
    fit(tmp_path, made, data)
    assert [request.prompt == request.original.prompt for request in data.requests] == [False] * 3
    assert made.loop.edits_written == 2
    assert made.loop.left_out == [first.name]
    assert [request.case_id for request in data.measured] == [second.case_id, "again"]


def test_a_plain_edit_is_replaced_by_one_in_a_chat_and_its_key_released(chat_model, tmp_path, caplog):
    first, _, again = edits()
    plain = module(model=chat_model, chat=False, previous_keys=True)
    folder = fit(tmp_path, plain, Requests([first]))
    settings = {"previous_keys": True, "on_top_of": str(folder / "edited.ckpt")}
    made = module(model=chat_model, chat_settings=IN_CHAT, **settings)
    run = fit(tmp_path, made, Requests([again]))
    assert f"record again: {again.target_new!r} replaces {first.target_new!r} of update 1" in caplog.text
    *others, largest = torch.linalg.eigvalsh(made.loop.editor.previous_keys[0].dense())
    assert max(others) < 1e-9 * largest  # one key
    # A third run reads the files of both.
    caplog.clear()
    third = module(model=chat_model, chat=False, **settings | {"on_top_of": str(run / "edited.ckpt")})
    fit(tmp_path, third, Requests([replace(first, case_id="third")]))
    assert f"record third: {first.target_new!r} replaces {again.target_new!r} of update 1" in caplog.text
