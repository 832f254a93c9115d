"""Second moments in files of a run, of which one is in memory while it is used."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from lightning_edit.keys.text_moments import Moments
from lightning_edit.models.decoder import Decoder


class StoredMoments(Mapping[int, Tensor]):
    """The second moments of layers in a temporary folder, which goes with the object; each look-up reads a file.

    The files hold the numbers alone, and are read and written without a copy.
    """

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="lightning-edit-", ignore_cleanup_errors=True)
        self._shapes: dict[int, torch.Size] = {}

    def keep(self, layer: int, moment: Tensor) -> None:
        """Writes the second moment of a layer.

        Args:
            layer: The layer.
            moment: C ``(d_in, d_in)``, of E experts ``(E, d_in, d_in)``, in float64.

        Raises:
            OSError: If the folder for temporary files, which ``TMPDIR`` names, has no room.
        """
        moment.cpu().contiguous().numpy().tofile(self._path(layer))
        self._shapes[layer] = moment.shape

    def moved(self, moments: Moments) -> Mapping[int, Tensor]:
        """Keeps all of some second moments; the caller should hold none of them, so that they are gone then.

        Args:
            moments: See `keep`.

        Returns:
            Those of output gradients, which stay in memory.
        """
        for layer, moment in moments.items():
            self.keep(layer, moment)
        return moments.outputs

    def _path(self, layer: int) -> Path:
        return Path(self._folder.name) / str(layer)

    def __getitem__(self, layer: int) -> Tensor:
        moment = torch.empty(self._shapes[layer], dtype=torch.float64)
        with self._path(layer).open("rb") as file:
            file.readinto(moment.numpy().data.cast("B"))
        return moment

    def __iter__(self) -> Iterator[int]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def unneeded_moment(decoder: Decoder, layer: int) -> Tensor:
    """C = 0 for a solver that does not look at it, in the memory of one number; see `Decoder.moment_shape`.

    Args:
        decoder: The model.
        layer: The edited layer.
    """
    zero = torch.zeros((), dtype=torch.float64, device=decoder.waiting_device)
    return zero.expand(decoder.moment_shape(layer))


def moment_without_text(decoder: Decoder, layer: int, identity: bool) -> Tensor:
    """C = I or C = 0, see `Decoder.moment_shape`.

    Args:
        decoder: The model.
        layer: The edited layer.
        identity: Which of them.
    """
    moment = torch.zeros(decoder.moment_shape(layer), dtype=torch.float64, device=decoder.waiting_device)
    if identity:
        moment.diagonal(dim1=-2, dim2=-1).fill_(1.0)
    return moment
