"""How many prompts a run is worth."""

from dataclasses import dataclass

# Measured: with so many prompts, each answered twice, collateral takes at most about a fifth of a run's time. Finding
# the values of one edit takes as long as about 60 prompts; what every run does anyway takes as long as 200 or more.
START, EACH, MOST = 40, 16, 400


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
        """40 prompts, and 16 more for each edit, at most 400.

        The number of edits decides, and not a clock, so that the same run always asks the same.

        Args:
            edits: How many the run makes.
        """
        return Budget(min(MOST, START + EACH * edits))

    @property
    def of_a_kind(self) -> int:
        """How many probes of each kind are made from edits."""
        return -(-self.prompts // 8)
