"""Keys of earlier edits, which later updates preserve."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# The share of d_in that recent keys may reach. A new factor of C' takes d_in^3 / 3 operations, shared by the N keys
# since the last one; each of them adds 2 N d_in on average to what a later key takes. Together that is least at 0.41;
# here it is 12 % more, and memory for recent keys a third less.
SHARE = 0.25
# The same where C is block-diagonal: a key then costs the experts it visits, and one matrix would cost all of them.
SHARE_OF_EXPERTS = 1.0


@dataclass(frozen=True)
class PreviousKeys:
    """C_p, the sum of k k^T over earlier edits: recent keys as they are, all before them as one matrix.

    It never changes, so that whoever holds one can go back to it. What it holds depends on the edits alone, so a run
    that is resumed from it rounds like one that was never stopped.

    Args:
        moment: The sum over the older edits ``(d_in, d_in)``, None where there are none.
        recent: The keys ``(d_in, n)`` of each later update, contiguous.
    """

    moment: Tensor | None = None
    recent: tuple[Tensor, ...] = ()

    def extended(self, keys: Tensor, experts: bool = False) -> "PreviousKeys":
        """With the keys of one more update; where recent ones have become many, all go into the matrix.

        Args:
            keys: ``(d_in, n)`` in float64.
            experts: Whether C is block-diagonal.
        """
        longer = PreviousKeys(self.moment, (*self.recent, keys.contiguous()))
        most = (SHARE_OF_EXPERTS if experts else SHARE) * len(keys)
        few = sum(block.shape[1] for block in longer.recent) <= most
        return longer if few else longer.folded()

    def without(self, keys: Tensor) -> "PreviousKeys":
        """Without keys that are no longer to be preserved.

        Args:
            keys: ``(d_in, n)`` in float64, as they were when they were added.
        """
        moment = self.dense()
        keys = keys if moment is None else keys.to(moment.device)
        return PreviousKeys(-(keys @ keys.T) if moment is None else moment - keys @ keys.T)

    def folded(self) -> "PreviousKeys":
        """The same with all keys in the matrix."""
        return PreviousKeys(self.dense())

    def dense(self) -> Tensor | None:
        """C_p ``(d_in, d_in)``, or None where there are no keys."""
        if not self.recent:
            return self.moment
        device = self.recent[-1].device
        keys = torch.cat([block.to(device) for block in self.recent], dim=1)
        return keys @ keys.T if self.moment is None else torch.addmm(self.moment.to(device), keys, keys.T)

    def product(self, rows: Tensor) -> Tensor:
        """X C_p ``(m, d_in)``, without C_p as a whole where there are keys alone.

        Args:
            rows: X ``(m, d_in)``.
        """
        total = torch.zeros_like(rows) if self.moment is None else rows @ self.moment.to(rows.device)
        for block in self.recent:
            keys = block.to(rows.device)
            total = torch.addmm(total, rows @ keys, keys.T)
        return total

    def packed(self) -> dict[str, Any]:
        """Tensors and lists only, on the CPU."""
        return {
            "moment": None if self.moment is None else self.moment.cpu(),
            "recent": [keys.cpu() for keys in self.recent],
        }

    @staticmethod
    def unpacked(content: dict[str, Any] | Tensor) -> "PreviousKeys":
        """What `packed` wrote.

        Args:
            content: As read from a file; older ones hold the sum alone.
        """
        if isinstance(content, Tensor):
            return PreviousKeys(content.clone())
        # Products with memory that is aligned in another way may round in another way.
        moment = content["moment"]
        return PreviousKeys(
            None if moment is None else moment.clone(), tuple(keys.clone() for keys in content["recent"])
        )
