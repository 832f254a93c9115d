"""Warnings of Lightning that say nothing to those who edit."""

import warnings
from types import SimpleNamespace

from lightning.pytorch.trainer.call import _call_callbacks_on_load_checkpoint

from lightning_edit.cli.fit import quieten


def warned(trainer):
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        if trainer.quiet:
            quieten()
        _call_callbacks_on_load_checkpoint(
            trainer, {"callbacks": {"Retention": {}}, "pytorch-lightning_version": "2.5.0"}
        )
    return [str(warning.message) for warning in shown]


def test_a_test_with_other_callbacks_than_the_fit_is_no_reason_for_a_warning(monkeypatch):
    # What is set is put back.
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    trainer = SimpleNamespace(lightning_module=None, callbacks=[], quiet=False)
    assert any("callbacks used to create the checkpoint" in said for said in warned(trainer))
    trainer.quiet = True
    assert warned(trainer) == []
