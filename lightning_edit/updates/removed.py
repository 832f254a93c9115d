"""Checkpoints of a run from which updates were removed: they hold all of them, while the run has gone on without."""

from dataclasses import dataclass
from pathlib import Path

from lightning_edit.messages import listed
from lightning_edit.storage.checkpoints.checkpoint_file import EDITED, run_beside
from lightning_edit.storage.run_files import UPDATE, UPDATES
from lightning_edit.updates.files.update_list import UpdateList, left_out
from lightning_edit.updates.files.update_record import DamagedUpdateError
from lightning_edit.updates.history import History
from lightning_edit.updates.layer_update import LayerUpdate
from lightning_edit.updates.model_update import ModelUpdate


@dataclass(frozen=True)
class Removed:
    """What a checkpoint holds and its run has no more.

    Args:
        file: The checkpoint.
        numbers: Of these updates, ascending, one at least.
    """

    file: Path
    numbers: list[int]

    @property
    def run(self) -> Path:
        """The folder of the run."""
        return run_beside(self.file)

    @property
    def stands_for_run(self) -> bool:
        """Whether whoever gives the checkpoint means the run as it is now: its folder may be given for this file."""
        return self.file == self.run / EDITED

    @property
    def updates(self) -> str:
        """The updates by their numbers: "update 2", "updates 1, 2"."""
        return f"update{'s' * (len(self.numbers) > 1)} {listed(self.numbers)}"

    def __str__(self) -> str:
        """The same in words, without a full stop."""
        were = "was" if len(self.numbers) == 1 else "were"
        return f"{self.file} still holds {self.updates}, which {were} removed from its run"

    @property
    def note(self) -> str:
        """What a user should know who gives the checkpoint."""
        if self.stands_for_run:
            return f"{self}. The run is taken as it is now, without what was removed."
        return f"{self}. It is taken as it is, with all that it holds; {self.run} is the run without what was removed."

    def kept(self) -> dict[int, LayerUpdate]:
        """For each layer the sum of the updates that are in the run now.

        Raises:
            EditError: If the run has no file of that sum, and an update is damaged or missing.
        """
        if (self.run / UPDATE).is_file():
            return ModelUpdate.load(self.run / UPDATE).layers
        return History(self.run / UPDATES).sum(self.numbers)

    def places(self, edits: int) -> list[int]:
        """Which of the edits are in removed updates, counted from 0 in the order in which the run wrote them.

        Args:
            edits: How many it wrote.

        Raises:
            DamagedUpdateError: If more than one update cannot be read, so that their edits cannot be counted.
        """
        history, sizes, damaged = UpdateList(self.run / UPDATES), dict[int, int](), list[DamagedUpdateError]()
        for number in history.numbers():
            try:
                sizes[number] = len(history.record(number).edits)
            except DamagedUpdateError as error:
                damaged.append(error)
        if len(damaged) > 1:
            raise damaged[0]
        sizes |= {error.number: edits - sum(sizes.values()) for error in damaged}
        owners = [number for number, size in sorted(sizes.items()) for _ in range(size)]
        return [place for place, owner in enumerate(owners) if owner in self.numbers]


def removed_from(file: Path, until: int | None = None) -> Removed | None:
    """What a checkpoint holds of updates that were removed from its run.

    Args:
        file: The checkpoint, also one that lies where no run is known.
        until: How many updates it holds; None for all of the run's.

    Returns:
        None where all that it holds is in the run.

    Raises:
        EditError: If the run's note of them cannot be read.
    """
    run = run_beside(file)
    removed = left_out(run, UpdateList(run / UPDATES))
    numbers = sorted(number for number in removed if until is None or number <= until)
    return Removed(file, numbers) if numbers else None
