"""Files that an earlier version wrote are read: the names of classes in them have changed since."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml

import lightning_edit
from lightning_edit import (
    MEMIT,
    PRUNE,
    RECT,
    REVIVE,
    SPHERE,
    EditingModule,
    EvoEdit,
    FineTuning,
    LyapLock,
    ModelUpdate,
    SimIE,
)
from lightning_edit.callbacks import EditReport
from lightning_edit.cli import main as cli
from lightning_edit.datamodules import CounterFact
from lightning_edit.loading.fingerprints import fingerprint_model
from lightning_edit.loading.pretrained import load_model
from lightning_edit.loop.same_run import check_same_run, plain
from lightning_edit.run.measured_module import MeasuredModule
from lightning_edit.storage.checkpoints.known_classes import known_classes, names_of

# A sequential run of the embedded model, MEMIT with PRUNE, that was killed after the first of its six updates.
EARLIER = Path(__file__).parent / "data" / "earlier_run"
CHECKPOINT = EARLIER / "checkpoints" / "update-000001.ckpt"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder with that run in it."""
    stored = torch.load(CHECKPOINT, weights_only=True)["edits"]["fingerprints"]["base weights and configuration"]
    if fingerprint_model(load_model("tiny")) != stored:
        pytest.skip("this version of transformers describes the embedded model in other words")
    shutil.copytree(EARLIER, tmp_path / "runs" / "version_0")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


@pytest.mark.slow
def test_a_run_of_an_earlier_version_goes_on_and_ends_like_one_that_was_never_stopped(runs):
    cli.main(["fit", "--ckpt_path", "last"])
    cli.main(["fit", "--config", str(EARLIER / "config.yaml")])
    resumed, whole = (ModelUpdate.load(runs / f"version_{n}" / "update.safetensors") for n in (0, 1))
    assert resumed.info["edits"] == whole.info["edits"] == 12
    # The first update was computed on another machine.
    for layer, update in whole.layers.items():
        torch.testing.assert_close(resumed.layers[layer].factors.dense(), update.factors.dense(), rtol=1e-3, atol=1e-6)
    for n in (0, 1):
        assert len(list((runs / f"version_{n}" / "updates").iterdir())) == 7  # the last one is PRUNE's


@pytest.mark.slow
def test_a_checkpoint_of_an_earlier_version_is_measured(runs):
    cli.main(["test", "--ckpt_path", str(runs / "version_0" / "checkpoints" / "update-000001.ckpt")])
    config = yaml.safe_load((runs / "version_1" / "config.yaml").read_text())
    assert config["model"]["class_path"] == "lightning_edit.EditingModule"
    assert config["data"]["init_args"]["edits"] == 12


def test_every_public_class_has_a_public_path():
    assert names_of(MEMIT)[0] == "lightning_edit.MEMIT"
    assert names_of(EditingModule)[0] == "lightning_edit.EditingModule"
    assert plain([RECT(0.3)]) == [{"class_path": "lightning_edit.RECT", "init_args": {"keep": 0.3}}]
    for name in set(lightning_edit.__all__) - {"__version__"}:
        assert getattr(lightning_edit, name).__name__ == name


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (("lightning_edit", "module"), EditingModule),
        (("lightning_edit", "fine_tuning"), FineTuning),
        (("lightning_edit", "solvers", "memit"), MEMIT),
        (("lightning_edit", "solvers", "post_processing"), RECT),
        (("lightning_edit", "solvers", "post_processing"), PRUNE),
        (("lightning_edit", "solvers", "spectral"), REVIVE),
        (("lightning_edit", "solvers", "spectral"), SPHERE),
        (("lightning_edit", "solvers", "anchors"), LyapLock),
        (("lightning_edit", "solvers", "anchors"), SimIE),
        (("lightning_edit", "solvers", "evoedit"), EvoEdit),
        (("callbacks",), EditReport),
        (("callbacks", "report"), EditReport),
        (("datamodules",), CounterFact),
        (("datamodules", "counterfact"), CounterFact),
    ],
)
def test_private_paths_of_earlier_versions_are_accepted(path, kind):
    assert known_classes(kind)[".".join([*path, kind.__name__])] == names_of(kind)[0]


def test_the_private_path_of_a_solver_is_no_other_solver():
    private = ".".join(["lightning_edit", "solvers", "memit", "MEMIT"])
    then = {"solver": {"class_path": private, "init_args": {"ridge": 0.1}}, "post_processing": [plain(RECT(0.3))]}
    now = {"solver": {"class_path": "lightning_edit.MEMIT", "init_args": {"ridge": 0.1}}}
    check_same_run(then, now | {"post_processing": [plain(RECT(0.3))]})
    with pytest.raises(lightning_edit.EditError, match="RECT"):
        check_same_run(then, now | {"post_processing": [plain(RECT(0.4))]})
    assert known_classes(MeasuredModule)["EditingModule"] == "lightning_edit.EditingModule"
