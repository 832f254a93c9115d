"""The figures of updates that become others after they were solved."""

import dataclasses

import pytest
import torch

from lightning_edit import MEMIT, PRUNE, REVIVE, RROME, SimIE
from lightning_edit.datamodules import TinyWorld
from lightning_edit.keys.edit_keys import compute_keys, current_values
from lightning_edit.run.edit_callback import EditCallback
from lightning_edit.solvers.post_processing.spectral import dominant
from tests.small_runs import VALUES, module
from tests.trainers import quiet_trainer


class Measured(EditCallback):
    """What is kept of each update, and how much of its edits the weights hold then."""

    def __init__(self):
        self.figures, self.factors, self.held = [], [], []

    def on_edits_written(self, trainer, pl_module):
        last, editor, weights = pl_module.loop.last_update, pl_module.loop.editor, pl_module.weights
        self.figures.append(dict(last.written.figures))
        self.factors.append(last.written.factors[0].dense())
        z = pl_module.waiting[pl_module.loop.updates_written - 1]
        with weights.unedited():
            how = (pl_module.decoder, pl_module.tokenizer, last.requests, editor.templates, 0)
            keys = compute_keys(*how).mean
            residual = z.T.double() - current_values(*how, editor.values.site)
        held = weights.added[0].apply(keys)
        self.held.append(float((held - residual).norm() / residual.norm()))


def run(folder, **changes):
    measured, made = Measured(), module(**changes)
    made.waiting, take = [], made.loop.queue.take

    def taken(requests):
        found = take(requests)
        made.waiting.append(found[1])
        return found

    made.loop.queue.take = taken
    quiet_trainer(folder, measured).fit(made, datamodule=TinyWorld(edits=4, batch_size=2))
    return measured, made


def test_simie_says_how_much_of_an_update_the_blended_weights_hold(tmp_path):
    values = dataclasses.replace(VALUES, weights="unedited")
    measured, made = run(tmp_path, solver=MEMIT(1.0, ridge=0.01), anchor=SimIE(ridge=50.0), values=values)
    said = [figures["layer_0/memorization_error"] for figures in measured.figures]
    assert said == pytest.approx(measured.held, rel=1e-6)
    assert min(said) > 0.2
    moment = made.loop.editor.moments[0].double()
    lost = [float(torch.trace(change @ moment @ change.T).sqrt()) for change in measured.factors]
    assert [figures["layer_0/preservation_error"] for figures in measured.figures] == pytest.approx(lost, rel=1e-6)


def test_what_is_protected_stays_so_after_simie_has_blended(tmp_path):
    values = dataclasses.replace(VALUES, weights="unedited")
    how = {"anchor": SimIE(ridge=10.0), "post_processing": REVIVE(energy=0.3), "values": values}
    measured, made = run(tmp_path, solver=MEMIT(1.0, ridge=0.01), **how)
    left, right = dominant(made.weights.base[0].double(), 0.3)
    for change in measured.factors:
        assert float((change @ right).norm()) < 1e-10 * float(change.norm())
        assert float((left.T @ change).norm()) < 1e-10 * float(change.norm())


def test_independent_updates_are_measured_after_prune(tmp_path):
    how = {"post_processing": PRUNE(alpha=20.0), "independent_updates": True, "edits_per_update": 1}
    measured, _ = run(tmp_path, solver=RROME(), **how)
    norms = [float(factors.norm()) for factors in measured.factors]
    assert [figures["layer_0/update_norm"] for figures in measured.figures] == pytest.approx(norms)
    said = [figures["layer_0/memorization_error"] for figures in measured.figures]
    assert said == pytest.approx(measured.held, rel=1e-6)
    assert max(said) > 0.01
