"""Answers that a reply comes to later than it did before."""

from contextlib import nullcontext

import pytest

from lightning_edit.collateral import Asked, Asking, Probe, figures_of
from lightning_edit.collateral.late_answers import with_late_answers
from lightning_edit.loading.pretrained import load_model
from lightning_edit.models.decoder import find_decoder

# The model goes on with " baker. The profession of Dorhul Vorwib is that of" and the like.
BAKER, BORN = "The guild lists Hulbin Larrem as a", "Polfol Fendeb"


@pytest.fixture
def asking(tiny_tokenizer):
    return Asking(find_decoder(load_model("tiny", "auto")), tiny_tokenizer, 3, nullcontext)


def replies(asking, *probes):
    asked = asking.now([probe.prompt for probe in probes], [True] * len(probes))
    return asked, with_late_answers(probes, asked, asking)


def test_a_reply_is_read_on_up_to_the_answer_it_gave_before(asking):
    late = Probe("general", BAKER, ("profession",), before="A profession.")
    too_late = Probe("general", BAKER, ("Vorwib",), before="It is Vorwib.")
    asked, found = replies(asking, late, too_late)
    assert [now.text for now in asked] == [" baker. The", " baker. The"]
    assert [now.text for now in found] == [" baker. The profession", " baker. The"]
    assert [now.kl for now in found] == [now.kl for now in asked]
    assert figures_of([late, too_late], asked)["general_lost"] == 1
    assert figures_of([late, too_late], found)["general_lost"] == 0.5


def test_what_is_not_lost_is_not_asked_again(asking, monkeypatch):
    right = Probe("general", BAKER, ("baker",), before="A baker.")
    unknown = Probe("general", BORN, ("Crowstead",), before="No idea.")
    old = Probe("old_object", BAKER, ("profession",), before="A profession.")
    edit = Probe("reworded", BORN, ("town",), before="In a village.")
    taken = Probe("other_subjects", BORN, unwanted="born", before="A village.")
    probes = [right, unknown, old, edit, taken]
    asked = asking.now([probe.prompt for probe in probes])
    monkeypatch.setattr(Asking, "now", lambda *_, **__: pytest.fail("asked again"))
    assert with_late_answers(probes, asked, asking) == asked
    assert with_late_answers([], [], asking) == list[Asked]()
