"""How many prompts a run is worth."""

from dataclasses import dataclass

# Estimated from runs of a chat model of 135 M parameters: one edit, its values and its measurement, takes as long as 26
# prompts that are answered twice, second moments and the rest of a run as long as 150 or more.
START, EACH, MOST = 20, 6, 400


@dataclass(frozen=True)
class Budget:
    """A number of prompts, shared between the kinds of probes.

    General prompts get half of it, and what the others leave. The other half goes in equal parts to the four kinds of
    probes that are made from edits.

    Args:
        prompts: Of all kinds together.
    """

    prompts: int

    @staticmethod
    def of_run(edits: int) -> "Budget":
        """20 prompts, and 6 more for each edit, at most 400, which 64 edits reach.

        The number of edits decides, and not a clock, so that the same run always asks the same.

        Args:
            edits: How many the run makes.
        """
        return Budget(min(MOST, START + EACH * edits))

    @property
    def of_a_kind(self) -> int:
        """How many probes of each kind are made from edits."""
        return -(-self.prompts // 8)
