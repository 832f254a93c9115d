"""What a module writes into a checkpoint, and how it goes on from one."""

from typing import Any

from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from lightning_edit.distributed.process_group import processes
from lightning_edit.errors import EditError
from lightning_edit.messages import counted
from lightning_edit.old_names import current
from lightning_edit.requests import EditRequest
from lightning_edit.run.checkpoint_fit import check_fits, check_form
from lightning_edit.run.edit_callback import tell
from lightning_edit.run.plain_settings import plain
from lightning_edit.run.run_state import RunState, random_states, set_random_states
from lightning_edit.run.same_run import check_base, check_same_run
from lightning_edit.settings import settings_without_effect
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.storage.numbers import refuse_not_finite
from lightning_edit.storage.run_folder import stay_in
from lightning_edit.updates.edited_weights import EditedWeights


class Resumable:
    """Lightning's checkpoint hooks for a module whose model is edited: edited tensors, and where the run is.

    Attributes:
        resumed: Whether the fit goes on from a checkpoint.
    """

    resumed = False
    fingerprints: dict[str, str]
    layers: list[int]
    weights: EditedWeights
    results: dict[str, dict[str, float]]
    curves: list[dict[str, Any]]
    seconds: dict[str, float]
    left_out: list[str]
    edits_written: int
    decoder: Any
    tokenizer: Any
    trainer: Any
    hparams: Any
    model_name: str
    _loaded_records: str | None = None
    _fingerprints_then: dict[str, str]
    _records: tuple[int, str] | None = None

    def describe(self) -> dict[str, Any]:
        """What a checkpoint tells of the run beside weights and settings."""
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the edited tensors only, and what tells whether they fit a model."""
        names = {f"model.{self.decoder.names[layer]}.weight" for layer in self.layers}
        checkpoint["state_dict"] = {name: t for name, t in checkpoint["state_dict"].items() if name in names}
        # Objects would make the checkpoint unreadable for `weights_only`.
        for key in ("hyper_parameters", "datamodule_hyper_parameters"):
            checkpoint[key] = plain(checkpoint.get(key, {}))
        # How a model is measured is not a property of its edits: whoever measures it again decides anew.
        checkpoint["hyper_parameters"].pop("evaluation", None)
        # Where a run goes on is known to the edit, which Lightning's loops do not count.
        checkpoint.pop("loops", None)
        checkpoint["edits"] = {
            "base": {str(layer): self.weights.base_fingerprint(layer) for layer in self.layers},
            "edits_written": self.edits_written,
            "before": self.results.get("before"),
            "records": self.records_fingerprint(),
            "left_out": self.left_out,
            "fingerprints": self.fingerprints,
            "processes": processes(),
            **self.describe(),
        }
        if (state := self.state()) is not None:
            checkpoint["run"] = state.packed()
            checkpoint["random"] = random_states()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses edited tensors of another model, and in a fit all but the same run; then goes on from there.

        Raises:
            EditError: See `check_base` and `check_same_run`.
        """
        edits, fits = checkpoint.get("edits"), self.trainer.state.fn == TrainerFn.FITTING
        if edits is None:
            raise EditError("The checkpoint holds no edits; give the edited.ckpt of a run.")
        # A strategy that divides the weights has put them in their places by now, and taken them out here.
        check_form({"state_dict": {}, **checkpoint})
        check_base(edits, self.weights, self.model_name)
        refuse_not_finite(checkpoint.get("state_dict", {}), "The checkpoint")
        goes_on = "run" in checkpoint and self.state() is not None
        if fits and goes_on:
            stay_in(self.trainer, self.trainer.ckpt_path)
            tell(self, "on_resume")
            self._check_same_run(checkpoint)
        check_fits(checkpoint, self.weights, len(self.trainer.datamodule.requests) if fits else None)
        self.edits_written = edits["edits_written"]
        if edits["before"] is not None:
            self.results["before"] = edits["before"]
        self._loaded_records, self.left_out = edits["records"], edits["left_out"]
        if goes_on:
            state = RunState.unpacked(checkpoint["run"])
            self.restore(state, edits)
            if fits:
                self._resume(checkpoint, state)
        elif fits:
            raise EditError("This checkpoint cannot be gone on from: fine-tuning makes all edits in one fit.")

    def _check_same_run(self, checkpoint: dict[str, Any]) -> None:
        kept, own = current(checkpoint["hyper_parameters"], warn=False), plain(self.hparams)
        data, own_data = checkpoint["datamodule_hyper_parameters"], plain(self.trainer.datamodule.hparams)
        then = {"model": kept, "data": data, "edits of the data": checkpoint["edits"]["records"]}
        now = {"model": own, "data": own_data, "edits of the data": self.records_fingerprint()}
        owners = {"model": type(self), "data": type(self.trainer.datamodule)}
        check_same_run(then, now, settings_without_effect(owners, "resuming"))

    def _resume(self, checkpoint: dict[str, Any], state: RunState) -> None:
        edits = checkpoint["edits"]
        if edits["processes"] != processes():
            rank_zero_warn(
                f"The run had {counted(edits['processes'], 'process', 'processes')} and goes on with {processes()}: "
                "what follows is rounded in another way than in a run that was never stopped."
            )
        self.resumed = True
        self.curves, self.seconds = list(state.curves), {**self.seconds, **state.seconds}
        self._fingerprints_then = edits["fingerprints"]
        set_random_states(checkpoint["random"])

    def note_fingerprints(self, found: dict[str, str]) -> None:
        """Notes what else a run depends on, and refuses to go on where that has changed.

        Args:
            found: Fingerprints by name.

        Raises:
            EditError: Lists what is different.
        """
        if self.resumed:
            check_same_run(self._fingerprints_then, found)
        self.fingerprints = found

    def state(self) -> RunState | None:
        """What a checkpoint keeps of a run that can go on; None if it cannot."""
        return None

    def restore(self, state: RunState, described: dict[str, Any]) -> None:
        """Goes on where a checkpoint was written.

        Args:
            state: That of the run.
            described: What `describe` told.
        """

    def records_fingerprint(self) -> str:
        """The hash of all edits of the run, in their order."""
        requests = self.trainer.datamodule.requests
        if self._records is None or self._records[0] != id(requests):
            self._records = id(requests), fingerprint(*map(_described, requests))
        return self._records[1]


def _described(request: EditRequest) -> str:
    # Records without a separator of their own have the fingerprint that they had before there was one.
    return repr(request) + ("" if request.separator is None else f" separator {request.separator!r}")
