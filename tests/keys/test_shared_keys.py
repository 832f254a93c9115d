"""Edits of one update that have one key: said before the run, with how many they are."""

import torch

from lightning_edit import EditRequest, ValueSettings, edit
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.keys.edit_keys import compute_keys, warn_of_shared_keys
from lightning_edit.models.decoder import find_decoder
from tests.small_models import make_gpt2, make_tokenizer

TOWER = [
    EditRequest("Eiffel Tower", "{} is located in the city of", "Rome"),
    EditRequest("Eiffel Tower", "{} was built by", "London"),
    EditRequest("Eiffel Tower", "The {} stands in", "Berlin"),
    EditRequest("Toyota", "{} is located in the city of", "Paris"),
]


def test_edits_that_share_a_key_are_counted(caplog):
    keys = compute_keys(find_decoder(make_gpt2()), make_tokenizer(), TOWER, ContextTemplates(("{}", "I. {}")), 0).mean
    assert torch.equal(keys[:, 0], keys[:, 1])
    assert not torch.allclose(keys[:, 0], keys[:, 2])
    warn_of_shared_keys([TOWER])
    assert "2 of 4 edits share their key" in caplog.text
    assert "edits_per_update: 1" in caplog.text


def test_keys_of_different_updates_and_replacing_edits_are_no_matter(caplog):
    warn_of_shared_keys([TOWER[:1], TOWER[1:]])
    replacing = EditRequest("Eiffel Tower", "{} is located in the city of", "London")
    warn_of_shared_keys([[TOWER[0], replacing]])
    assert not caplog.text


def test_the_python_interface_warns_as_well(caplog):
    moments = {0: torch.eye(24).double()}
    edit(make_gpt2(), make_tokenizer(), TOWER, values=ValueSettings(steps=2), moments=moments, progress=False)
    assert "2 of 4 edits share their key" in caplog.text
