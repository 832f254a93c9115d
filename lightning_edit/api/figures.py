"""The figures of edits on one state of a model, and before and after them as a table."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_edit.messages import terminal
from lightning_edit.metrics.table import table

WIDTH = 100
HTML = '<pre style="line-height: 1.2; font-family: monospace">{code}</pre>'


@dataclass(frozen=True, repr=False)
class Figures(Mapping[str, float]):
    """Figures by name, such as ``figures["efficacy_accuracy"]``; shares go from 0 to 1.

    Beside each mean over the edits there are its standard error, ``<name>_stderr``, and the number of edits that have
    it, ``<name>_n``; see `EditMetrics`.

    Args:
        means: The figures.
        records: What was found of each edit, in their order, see `evaluate`.
    """

    means: Mapping[str, float]
    records: Sequence[Mapping[str, Any]]

    def __getitem__(self, name: str) -> float:
        return self.means[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.means)

    def __len__(self) -> int:
        return len(self.means)

    def __repr__(self) -> str:
        """The means alone."""
        means = {name: value for name, value in self.items() if not name.endswith(("_stderr", "_n"))}
        return f"Figures({', '.join(f'{name}={value:.4g}' for name, value in means.items())})"


@dataclass(frozen=True, repr=False)
class Summary:
    """Figures before and after edits; printed, it is a table in percent, in a notebook as well.

    Args:
        before: Figures of the model without the edits.
        after: Figures of the model with them.
        edits: How many were written.
    """

    before: Mapping[str, float]
    after: Mapping[str, float]
    edits: int

    def __rich__(self) -> Any:
        return table({"before": dict(self.before), "after": dict(self.after)}, self.edits)

    def __str__(self) -> str:
        """The table as text."""
        console = terminal(file=io.StringIO(), width=WIDTH)
        with console.capture() as captured:
            console.print(self.__rich__())
        return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        console = terminal(file=io.StringIO(), width=WIDTH, record=True)
        console.print(self.__rich__())
        return console.export_html(inline_styles=True, code_format=HTML)
