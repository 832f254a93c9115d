"""What a run writes into a checkpoint, and how it goes on from one."""

from pathlib import Path
from typing import Any

from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from lightning_edit.commands.method_file import METHOD_FILE
from lightning_edit.distributed.process_group import processes
from lightning_edit.errors import EditError
from lightning_edit.loop.checkpoint_fit import check_fits, check_form
from lightning_edit.loop.measured_again import as_run_is_now
from lightning_edit.loop.on_top_of import start_of
from lightning_edit.loop.run_state import RunState, random_states, set_random_states
from lightning_edit.loop.same_run import check_base, check_same_run, plain
from lightning_edit.messages import counted
from lightning_edit.old_names import current
from lightning_edit.run.edit_callback import EditingRun, call_hooks
from lightning_edit.settings import settings_without_effect
from lightning_edit.storage.run_folder import stay_in

# Sections of a run's figures that it keeps when it goes on.
KEPT = ("wild", METHOD_FILE)


def save_run(module: EditingRun, checkpoint: dict[str, Any]) -> None:
    """Keeps the edited tensors only, and what tells whether they fit a model.

    Args:
        module: The module under way.
        checkpoint: What Lightning is about to write; it is changed in place.
    """
    names = {f"model.{module.decoder.parameter_name(layer)}" for layer in module.layers}
    checkpoint["state_dict"] = {name: t for name, t in checkpoint["state_dict"].items() if name in names}
    # Objects would make the checkpoint unreadable for `weights_only`.
    for key in ("hyper_parameters", "datamodule_hyper_parameters"):
        checkpoint[key] = plain(checkpoint.get(key, {}))
    # How a model is measured is not a property of its edits: whoever measures it again decides anew.
    checkpoint["hyper_parameters"].pop("evaluation", None)
    # Where a run goes on is known to the edit, which Lightning's loops do not count.
    checkpoint.pop("loops", None)
    checkpoint["edits"] = {
        "base": {str(layer): module.weights.base_fingerprint(layer) for layer in module.layers},
        **module.weights.described_model,
        "edits_written": module.loop.edits_written,
        "before": module.results.get("before"),
        "records": module.identity.records(module.requests),
        "left_out": module.loop.left_out,
        "fingerprints": module.identity.fingerprints,
        "processes": processes(),
        **module.describe(),
        **{name: section for name, section in module.sections.items() if name in KEPT},
    }
    if module.by_updates:
        checkpoint["run"] = module.loop.kept.packed()
        checkpoint["random"] = random_states()


def load_run(module: EditingRun, checkpoint: dict[str, Any]) -> None:
    """Refuses edited tensors of another model, and in a fit all but the same run; then goes on from there.

    Args:
        module: The module that is to go on, or to be measured.
        checkpoint: As read from a file.

    Raises:
        EditError: If there is no trainer, and see `check_base` and `check_same_run`.
    """
    if getattr(module, "_trainer", None) is None:
        raise EditError(
            "Edits are read from a checkpoint by a trainer: trainer.test(module, datamodule=..., ckpt_path=...). "
            "The edits alone are in the run's update.safetensors: ModelUpdate.load(...).insert(model)."
        )
    edits, fits = checkpoint.get("edits"), module.trainer.state.fn == TrainerFn.FITTING
    if edits is None:
        raise EditError("The checkpoint holds no edits; give the edited.ckpt of a run.")
    # A strategy that divides the weights has put them in their places by now, and taken them out here.
    check_form({"state_dict": {}, **checkpoint})
    check_base(edits, module.weights, module.model_name)
    goes_on = "run" in checkpoint and module.by_updates
    if fits and goes_on:
        stay_in(module.trainer, module.trainer.ckpt_path)
        call_hooks(module, "on_resume")
        _check_same_run(module, checkpoint)
    check_fits(checkpoint, module.weights, len(module.requests) if fits else None)
    module.loop.edits_written, module.loop.left_out = edits["edits_written"], edits["left_out"]
    module.take_before(edits)
    if METHOD_FILE in edits:
        module.sections.setdefault(METHOD_FILE, edits[METHOD_FILE])
    module.identity.loaded_records = edits["records"]
    if goes_on:
        state = RunState.unpacked(checkpoint["run"])
        if not fits:
            state = _measured(module, checkpoint, state)
        module.restore(state, edits)
        if fits:
            _resume(module, checkpoint, state)
        elif checkpoint["hyper_parameters"].get("on_top_of"):
            module.loop.built_upon = start_of(Path(module.trainer.ckpt_path), module.weights)
    elif fits:
        raise EditError("This checkpoint cannot be gone on from: fine-tuning makes all edits in one fit.")


def _measured(module: EditingRun, checkpoint: dict[str, Any], state: RunState) -> RunState:
    """What is measured of a checkpoint; the weights that it holds are put in no more where that is less."""
    path, base = module.trainer.ckpt_path, checkpoint["edits"]["base"]
    now = state if path is None else as_run_is_now(state, Path(path), base, module.weights)
    if now is not state and "state_dict" in checkpoint:
        checkpoint["state_dict"] = {}
    return now


def _check_same_run(module: EditingRun, checkpoint: dict[str, Any]) -> None:
    data = module.trainer.datamodule
    then = {
        "model": current(checkpoint["hyper_parameters"], warn=False),
        "data": checkpoint["datamodule_hyper_parameters"],
        "edits of the data": checkpoint["edits"]["records"],
    }
    now = {
        "model": plain(module.hparams),
        "data": plain(data.hparams),
        "edits of the data": module.identity.records(module.requests),
    }
    owners = {"model": type(module), "data": type(data)}
    check_same_run(then, now, settings_without_effect(owners, "resuming"))


def _resume(module: EditingRun, checkpoint: dict[str, Any], state: RunState) -> None:
    edits = checkpoint["edits"]
    if edits["processes"] != processes():
        rank_zero_warn(
            f"The run had {counted(edits['processes'], 'process', 'processes')} and goes on with {processes()}: "
            "what follows is rounded in another way than in a run that was never stopped."
        )
    module.identity.resume(edits["fingerprints"])
    module.seconds |= state.seconds
    set_random_states(checkpoint["random"])
