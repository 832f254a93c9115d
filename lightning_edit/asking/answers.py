"""The answers of a model before and after its edits, side by side."""

import io
from dataclasses import dataclass

from rich.cells import cell_len
from rich.table import Table

from lightning_edit.messages import cells, terminal

WIDTH = 100


@dataclass(frozen=True, repr=False)
class Answers:
    """What a model says to one question. Printed, it is a table with a column for each answer.

    Args:
        question: What it was asked.
        before: Its answer before the edits.
        after: Its answer after them.
    """

    question: str
    before: str
    after: str

    def table(self, expand: bool = False) -> Table:
        """The answers side by side, the question above.

        Args:
            expand: Whether the table is as wide as the terminal.
        """
        title = cells([self.question])[0]
        # A question in one line is not to be broken above short answers.
        width = cell_len(title)
        drawn = Table("before", "after", title=title, title_justify="left", min_width=width, expand=expand)
        drawn.add_row(*cells([self.before.strip(), self.after.strip()]))
        return drawn

    def __rich__(self) -> Table:
        return self.table()

    def __repr__(self) -> str:
        """The table as text."""
        console = terminal(file=io.StringIO(), width=WIDTH)
        with console.capture() as captured:
            console.print(self.table())
        return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())
