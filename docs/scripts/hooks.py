"""What the site takes from the code when it is built: settings, help texts, the figure of the rooms, mathematics."""

import html
import io
import logging
import os
import re
import shutil
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

from draw_rooms import BESIDE, PACKAGE, draw
from settings_tables import summary_of, table_of

# What is logged here as a warning fails a strict build.
logger = logging.getLogger("mkdocs.hooks")
REPOSITORY = Path(__file__).parents[2]
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
HELP = re.compile(r"^<!-- help: (\w+) -->$", re.MULTILINE)
SETTINGS = re.compile(r"^<!-- settings: (\S+) ?(\S*) -->$", re.MULTILINE)
LOADS = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*(?:src|href)=["']?https?://[^>]*>""")
COLUMNS = "96"
AT_THE_TOP = ("CONTRIBUTING", "SECURITY", "CHANGELOG")


def on_startup(**_: Any) -> None:
    """Shows mkdocstrings the library as it is installed: with the folders that stand beside it in the repository."""
    view = REPOSITORY / "build" / "import_view" / PACKAGE
    shutil.rmtree(view, ignore_errors=True)
    for source, target in ((PACKAGE, view), *((name, view / name) for name in BESIDE)):
        shutil.copytree(REPOSITORY / source, target, ignore=shutil.ignore_patterns("__pycache__", "model"))


def on_files(files: Files, config: Any) -> Files:
    """Adds the figure of the rooms, and the files that stand at the top of the repository."""
    files.append(File.generated(config, "images/rooms.svg", content=draw(REPOSITORY)))
    for name in AT_THE_TOP:
        # mkdocs itself says which of them is not there.
        if not (REPOSITORY / f"{name}.md").is_file():
            continue
        text = (REPOSITORY / f"{name}.md").read_text(encoding="utf-8").replace("](docs/", "](")
        for other in AT_THE_TOP:
            text = text.replace(f"]({other}.md", f"]({other.lower()}.md")
        files.append(File.generated(config, f"{name.lower()}.md", content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts help texts and tables of settings where a page asks for them."""
    markdown = HELP.sub(lambda found: f"```text\n{help_of(found[1])}```", markdown)
    return SETTINGS.sub(lambda found: settings_section(found[1], found[2]), markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Turns formulas into MathML, which browsers draw by themselves."""

    def mathml(found: re.Match[str]) -> str:
        display = "block" if found[1] == "div" else "inline"
        return convert(html.unescape(found[2]).strip(), display=display)

    return FORMULA.sub(mathml, content)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Sees that a page needs nothing from the network."""
    for tag in LOADS.findall(output):
        logger.warning("%s loads something from the network: %s", page.file.src_uri, tag)
    return output


def help_of(command: str) -> str:
    """What ``lightning-edit COMMAND --help`` prints."""
    from lightning_edit.cli.main import main

    printed, before = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = COLUMNS
    try:
        with redirect_stdout(printed), suppress(SystemExit):
            main([command, "--help"])
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    if not printed.getvalue():
        logger.warning("`lightning-edit %s --help` prints nothing.", command)
    return printed.getvalue()


def settings_section(path: str, prefix: str) -> str:
    """The settings of a class, ``module.Name``, under a line that says what it is."""
    module, _, name = path.rpartition(".")
    owner = getattr(__import__(module, fromlist=[name]), name)
    return f"{summary_of(owner)}\n\n{table_of(owner, prefix)}"
