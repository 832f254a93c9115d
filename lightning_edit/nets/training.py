"""The training of a net: Lightning's loop, with a checkpoint from which the same training goes on."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_edit.errors import EditError
from lightning_edit.gradients.net import GradientNet, Made
from lightning_edit.gradients.net_check import net_settings
from lightning_edit.gradients.net_file import WORDS, save_net
from lightning_edit.gradients.passes import check_backward
from lightning_edit.gradients.statistics import Statistics
from lightning_edit.loading.fingerprints import sample_of
from lightning_edit.models.finding.places import weight_shape
from lightning_edit.nets.lessons import Lesson
from lightning_edit.nets.objective import Pupil, sequence_loss
from lightning_edit.nets.settings import NetSettings
from lightning_edit.progress import Report, silent
from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.checkpoints.checkpoint_file import UNREADABLE
from lightning_edit.storage.fingerprint import fingerprint

CHECKPOINT = "training.ckpt"
OWN = "net_training"


class NetTraining(LightningModule):
    """Trains a net by the model that is edited with it; no weight of that model changes.

    Args:
        pupil: The model, and how it is edited.
        net: What is trained.
        lessons: All facts.
        settings: See `NetSettings`.
        folder: Where checkpoints go.
        every: Steps between them.
        report: Told how far it is.
    """

    def __init__(
        self,
        pupil: Pupil,
        net: GradientNet,
        lessons: Sequence[Lesson],
        settings: NetSettings,
        folder: Path,
        every: int,
        report: Report = silent,
    ) -> None:
        super().__init__()
        self.net, self.settings, self.lessons = net, settings, lessons
        self.folder, self.every, self.report = folder, every, report
        self.pupil, self.figures = pupil, dict[str, float]()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One sequence of updates."""
        step = self.global_step
        try:
            outcome = sequence_loss(self.pupil, self.net, self.net.statistics, self.turns(step), self.settings)
        except torch.linalg.LinAlgError as error:
            # A solver's system holds what is not finite.
            raise self._diverged(step) from error
        if not torch.isfinite(outcome.surrogate) or outcome.loss != outcome.loss:
            raise self._diverged(step)
        self.net.statistics = outcome.statistics
        edits = self.settings.batch * self.settings.turns
        self.figures = {"loss": outcome.loss / edits, "answers": outcome.same, "unrelated": outcome.unrelated}
        return outcome.surrogate

    def _diverged(self, step: int) -> EditError:
        kept = f" The checkpoint in {self.folder} is from before." if (self.folder / CHECKPOINT).is_file() else ""
        return EditError(
            f"The training diverged at step {step + 1}: its loss is not a finite number. Lower the learning rate or "
            f"`eta`.{kept}"
        )

    def turns(self, step: int) -> list[list[Lesson]]:
        """The facts of a step, for each update: all are taken once before one is taken again.

        Args:
            step: Which, counted from 0.
        """
        batch, count = self.settings.batch, self.settings.batch * self.settings.turns
        epoch, part = divmod(step, len(self.lessons) // count)
        drawn = int(fingerprint("facts of a net", str(self.settings.seed), str(epoch))[:15], 16)
        order = torch.randperm(len(self.lessons), generator=torch.Generator().manual_seed(drawn)).tolist()
        chosen = [self.lessons[position] for position in order[part * count : (part + 1) * count]]
        return [chosen[start : start + batch] for start in range(0, count, batch)]

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Tells how far it is, and keeps a checkpoint now and then."""
        done = self.global_step
        self.report("training the net (steps)", done, self.settings.steps, **self.figures)
        if done % self.every == 0 or done == self.settings.steps:
            with atomic_path(self.folder / CHECKPOINT) as scratch:
                self.trainer.save_checkpoint(scratch, weights_only=False)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, as published."""
        return torch.optim.Adam(self.net.parameters(), lr=self.settings.lr)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also keeps what was seen of keys and gradients, and whose training it is."""
        seen = {shape: seen.packed() for shape, seen in self.net.statistics.items()}
        checkpoint[OWN] = {"statistics": seen, "of": self.identity()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on with what was seen."""
        device = self.pupil.decoder.device
        for shape, content in checkpoint[OWN]["statistics"].items():
            there = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in content.items()}
            self.net.statistics[shape] = Statistics.unpacked(there)

    def identity(self) -> dict[str, str]:
        """What two trainings must share for one to go on with the other, in words and hashes."""
        pupil, decoder = self.pupil, self.pupil.decoder
        settings = {name: str(value) for name, value in asdict(self.settings).items() if name != "steps"}
        texts = [repr((lesson.request, lesson.same, lesson.unrelated)) for lesson in self.lessons]
        weights: list[Any] = [*(decoder.weight(place) for place in pupil.places), sample_of(decoder.model) or ""]
        read = {"facts": fingerprint(*texts), "weights": fingerprint(*weights), "contexts": str(pupil.templates)}
        return settings | read | {"solver": repr(pupil.solver), "source": repr(pupil.source)}


class _Steps(IterableDataset[int]):
    """Numbers without end; which facts a step takes is known from its own number."""

    def __iter__(self) -> Iterator[int]:
        return iter(int, 1)


def train(
    pupil: Pupil,
    lessons: Sequence[Lesson],
    settings: NetSettings,
    folder: Path,
    model: str,
    every: int = 50,
    report: Report = silent,
) -> GradientNet:
    """Trains a net, or goes on with a training that was stopped, and writes it.

    Args:
        pupil: The model, and how it is edited.
        lessons: All facts.
        settings: See `NetSettings`.
        folder: Where net and checkpoint go.
        model: The name of the model, for messages.
        every: Steps between checkpoints.
        report: Told how far it is.

    Returns:
        The net.

    Raises:
        EditError: If the places or facts cannot be trained with, the folder holds another training, or it diverges.
    """
    check_pupil(pupil, lessons, settings)
    net = GradientNet(made_of(pupil, settings, model), settings.seed).to(pupil.decoder.device)
    module = NetTraining(pupil, net, lessons, settings, folder, every, report)
    before = _checkpoint(module)
    trainer = Trainer(
        max_epochs=-1,
        max_steps=settings.steps,
        accelerator="cpu" if pupil.decoder.device.type == "cpu" else "gpu",
        devices=1,
        gradient_clip_val=settings.clip,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        default_root_dir=folder,
    )
    trainer.fit(module, DataLoader(_Steps(), batch_size=None), ckpt_path=before, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    save_net(net, folder)
    return net


def check_pupil(pupil: Pupil, lessons: Sequence[Lesson], settings: NetSettings) -> None:
    """Refuses places and facts with which no net can be trained.

    Args:
        pupil: The model, and how it is edited.
        lessons: All facts.
        settings: See `NetSettings`.

    Raises:
        EditError: Says what would work.
    """
    decoder, needed = pupil.decoder, settings.batch * settings.turns
    if experts := [decoder.shown(place) for place in pupil.places if decoder.experts(place)]:
        raise EditError(
            f"Layer {', '.join(experts)}: a net for experts would be as wide as all of them together. Name other maps "
            "of the block (--maps), such as those of its attention."
        )
    if len(lessons) < needed:
        raise EditError(
            f"A step takes {settings.turns} x {settings.batch} = {needed} facts (--turns, --batch), and there are "
            f"{len(lessons)}. Give more facts, or smaller steps."
        )
    check_backward(decoder, pupil.places)


def made_of(pupil: Pupil, settings: NetSettings, model: str) -> Made:
    """What a net is for, and how it is trained.

    Args:
        pupil: The model, and how it is edited.
        settings: See `NetSettings`.
        model: The name of the model.
    """
    decoder = pupil.decoder
    places = {decoder.names[place]: weight_shape(decoder, place) for place in pupil.places}
    form = (settings.rank, settings.blocks, net_settings(pupil.source), repr(pupil.solver))
    return Made(model, places, *form, training=asdict(settings))


def _checkpoint(module: NetTraining) -> Path | None:
    """The checkpoint of the same training, None where there is none yet."""
    path = module.folder / CHECKPOINT
    if not path.exists():
        if (module.folder / WORDS).exists():
            raise EditError(
                f"{module.folder} holds a finished net, and no {CHECKPOINT} to go on from. Give another folder "
                "(--out), or delete the net to train it anew."
            )
        return None
    content: Any = None
    with suppress(*UNREADABLE):
        content = torch.load(path, weights_only=True, map_location="cpu")
    if not isinstance(content, Mapping) or OWN not in content:
        raise EditError(f"{path} cannot be read, or is no checkpoint of a net. Delete it to train from the beginning.")
    then, now = content[OWN]["of"], module.identity()
    different = [f"{name}: {then.get(name)} there, {now[name]} here" for name in now if then.get(name) != now[name]]
    if different:
        raise EditError(
            f"{module.folder} holds the training of another net, and going on would mix the two "
            f"({'; '.join(different)}). Give the same settings, or another folder (--out)."
        )
    if (done := int(content["global_step"])) > module.settings.steps:
        raise EditError(f"{module.folder} holds a net of {done} steps, more than {module.settings.steps} (--steps).")
    return path
