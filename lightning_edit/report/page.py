"""The page itself: one HTML file that needs nothing else, neither files beside it nor a network nor a script."""

from collections.abc import Sequence
from importlib import resources
from itertools import count
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from lightning_edit.messages import counted, printable
from lightning_edit.report.charts import draw_panel, draw_shares
from lightning_edit.report.comparing import compared
from lightning_edit.report.facts import Facts, read_facts
from lightning_edit.report.figures import percent
from lightning_edit.report.svg import inline
from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.own_outputs import check_replaced
from lightning_edit.version import own_version

PAGE, STYLE = "page.html.jinja", "page.css"
# What a page holds; the second is of pages that were written before they said what made them.
SIGNS = (b'<meta name="generator" content="lightning-edit">', b'<a class="skip" href="#content">To the content</a>')


def write_report(runs: Sequence[Path], output: Path) -> list[str]:
    """Writes one page about one or several finished runs.

    Args:
        runs: Their folders, or folders that hold such folders.
        output: The HTML file; an older page is replaced.

    Returns:
        Notes on what was passed over.

    Raises:
        EditError: If the file is there and is no such page, and see `read_facts`; nothing is written then.
    """
    check_replaced("--output", output, *SIGNS)
    facts, notes = read_facts(runs)
    content = page_of(facts)
    with atomic_path(output) as scratch:
        scratch.write_text(content, encoding="utf-8")
    return notes


def page_of(facts: Sequence[Facts]) -> str:
    """The page as HTML.

    Args:
        facts: What is known of each run; one at least.
    """
    comparison = compared([one.run for one in facts]) if len(facts) > 1 else None
    title = facts[0].title if comparison is None else f"{counted(len(facts), 'run')} compared"
    return (
        _environment()
        .get_template(PAGE)
        .render(
            title=title,
            runs=facts,
            comparison=comparison,
            version=own_version(),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_source),
        # All that is not made here is text, whatever stands in it.
        autoescape=True,
        finalize=_finalized,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    numbers = count(1)

    def drawn(figure: Figure, label: str) -> Markup:
        return inline(figure, f"chart-{next(numbers)}", printable(label))

    environment.filters["percent"] = percent
    environment.globals |= {"drawn": drawn, "draw_shares": draw_shares, "draw_panel": draw_panel}
    environment.globals["style"] = Markup(_source(STYLE))
    return environment


def _source(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _finalized(value: Any) -> Any:
    """Lets texts of runs neither hide characters nor turn the direction of those around them."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
