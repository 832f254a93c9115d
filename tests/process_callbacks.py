"""What the processes of a run are made to do in tests."""

import json
import os
import signal
import time
from pathlib import Path

from lightning_edit.errors import EditError
from lightning_edit.run.edit_callback import EditCallback
from lightning_edit.storage.fingerprint import fingerprint


class Fail(EditCallback):
    """One process fails: at a moment, or in the model's first pass after it, in the middle of work that is shared."""

    def __init__(self, moment: str, rank: int, how: str = "EditError", in_pass: bool = True):
        self.moment, self.rank, self.how, self.in_pass = moment, rank, how, in_pass

    def _at(self, moment, trainer, module):
        if (moment, trainer.global_rank) == (self.moment, self.rank):
            if self.in_pass:
                module.model.register_forward_pre_hook(lambda *_: self._fail())
            else:
                self._fail()

    def _fail(self):
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "hang":
            time.sleep(600)
        raise {"EditError": EditError, "RuntimeError": RuntimeError}[self.how]("the seventh seal is broken")

    def on_train_start(self, trainer, pl_module):
        self._at("train", trainer, pl_module)

    def on_test_start(self, trainer, pl_module):
        self._at("test", trainer, pl_module)

    def on_update_kept(self, trainer, pl_module):
        self._at("kept", trainer, pl_module)


class Weights(EditCallback):
    """Each process writes down which weights it has after each update, and how often it was told of edits."""

    def __init__(self, folder: str):
        self.folder = Path(folder)

    def on_update_kept(self, trainer, pl_module):
        weights = {layer: fingerprint(pl_module.decoder.weight(layer)) for layer in pl_module.layers}
        line = {
            "edits": pl_module.loop.edits_written,
            "micro_batches": pl_module.loop.micro_batches,
            "weights": weights,
        }
        with (self.folder / f"weights-{trainer.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
