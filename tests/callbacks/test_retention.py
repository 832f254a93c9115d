"""Which earlier edits are measured again: those that a later one has not replaced, always the same sample."""

import random

import torch

from lightning_edit import EMMET, EditRequest, ValueSettings
from lightning_edit.callbacks import Retention
from lightning_edit.callbacks.measuring.retention import Order, valid_positions
from lightning_edit.datamodules import EditDataModule, TinyWorld
from lightning_edit.keys.layer_stats import SecondMomentSettings
from lightning_edit.run.module import EditingModule
from tests.small_models import make_request
from tests.trainers import quiet_trainer

LETTERS = [make_request(subject=letter) for letter in "abcdefghijklmnopqrst"]


class Changing(EditDataModule):
    """Facts of the embedded world, the first of which changes twice and comes back to its first answer."""

    def load_requests(self):
        first, second, third = TinyWorld(edits=3).requests
        for request, target in (
            (first, first.target_new),
            (first, third.target_new),
            (second, second.target_new),
            (first, first.target_new),
            (third, third.target_new),
        ):
            yield EditRequest(request.subject, request.prompt, target)


def test_a_sample_is_that_of_the_seed_and_changes_little():
    order, everything = Order(LETTERS, seed=3), range(len(LETTERS))
    early, late = order.draw(range(10), 4), order.draw(everything, 4)
    assert len(early) == len(late) == 4
    assert Order(LETTERS, seed=3).draw(everything, 4) == late
    assert Order(LETTERS, seed=4).draw(everything, 4) != late
    # The order has always been this one: resumed runs go on with the sample that they had.
    shuffled = LETTERS[:]
    random.Random(3).shuffle(shuffled)
    assert late == shuffled[:4]
    # What stays of the later sample and was there before is in the earlier one.
    assert set(late) & set(LETTERS[:10]) <= set(early)
    assert set(order.draw(list(everything), None)) == set(LETTERS)
    assert order.draw(everything, 4, exclude=[LETTERS.index(late[0])])[:3] == late[1:]


def test_equal_requests_are_drawn_once():
    # Equal, and not the same object.
    twice = [TinyWorld(edits=1).requests[0] for _ in range(2)]
    order = Order([twice[0], TinyWorld(edits=2).requests[1], twice[1]], seed=0)
    assert order.draw([0, 2], None) == order.draw([2], None) == order.draw([2, 0], 1) == twice[:1]
    assert len(order.draw([0, 1, 2], 2)) == 2
    assert not order.draw([2], None, exclude=[0])


def test_only_what_holds_at_the_time_is_measured(tmp_path):
    seen = []

    class Seen(Retention):
        def measure(self, trainer, module):
            figures = super().measure(trainer, module)
            seen.append(([module.requests[place].target_new for place in valid_positions(module)], figures))
            return figures

    data = Changing(conflicts="replace", batch_size=1, preservation=TinyWorld().preservation)
    made = EditingModule(
        "tiny",
        [0],
        solver=EMMET(1.0, ridge=0.01),
        values=ValueSettings(steps=8, clamp_norm_factor=4.0),
        second_moment=SecondMomentSettings(tokens=1000),
        context_templates=["{}"],
        edits_per_update=1,
    )
    quiet_trainer(tmp_path, Seen(every_n_updates=1)).fit(made, datamodule=data)
    first, second, third = TinyWorld(edits=3).requests
    assert [targets for targets, _ in seen] == [
        [first.target_new],
        [third.target_new],
        [third.target_new, second.target_new],
        [second.target_new, first.target_new],
        [second.target_new, first.target_new, third.target_new],
    ]
    assert [figures["retention/efficacy_accuracy_n"] for _, figures in seen] == [1, 1, 2, 2, 3]
    # The replaced answer would count as forgotten.
    assert all(figures["retention/efficacy_accuracy"] == 1 for _, figures in seen)
    assert data.measured == data.requests[2:]
    assert made.loop.edits_written == 5
    assert torch.isfinite(made.decoder.weight(0)).all()
