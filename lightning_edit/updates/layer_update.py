"""The update of one weight, and what files say of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from lightning_edit.solvers.base import Factors


@dataclass(frozen=True)
class LayerUpdate:
    """The update of one weight.

    Args:
        module: Name of the edited module in the model.
        base: Fingerprint of the weight ``(d_out, d_in)`` that the update was made for, of E experts
            ``(d_out, E, d_in)``.
        factors: Delta ``(d_out, d_in)`` in float64, of experts ``(d_out, E d_in)``.
        name: What people call it where it is not the down-projection of its layer, see `Decoder.shown`.
    """

    module: str
    base: str
    factors: Factors
    name: str = ""

    @property
    def described(self) -> dict[str, str]:
        """What a file says of it."""
        return {"module": self.module, "base": self.base, **({"name": self.name} if self.name else {})}

    def shown(self, layer: int) -> str:
        """What people call it, e.g. ``11``.

        Args:
            layer: The key under which it stands.
        """
        return self.name or str(layer)


def layer_update(described: Mapping[str, str], factors: Factors) -> LayerUpdate:
    """The update that a file describes.

    Args:
        described: See `LayerUpdate.described`.
        factors: Delta.
    """
    return LayerUpdate(described["module"], described["base"], factors, described.get("name", ""))
