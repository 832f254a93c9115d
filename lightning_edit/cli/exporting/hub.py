"""``export --hub``: what would be uploaded, and the upload, which loses nothing that was exported."""

import shlex
from argparse import Namespace
from pathlib import Path

from huggingface_hub import ModelCard
from rich import box
from rich.filesize import decimal
from rich.table import Table

from lightning_edit.errors import EditError
from lightning_edit.export.card import CARD
from lightning_edit.export.exported import files_of
from lightning_edit.export.hub import Target, check_remote, token_of_environment, upload_folder
from lightning_edit.messages import counted, terminal


def check_target(given: Namespace) -> Target:
    """Where to upload to; asks the hub before anything is exported, but for a dry run, which asks nobody.

    Args:
        given: The command's arguments.

    Raises:
        EditError: If it cannot be uploaded there.
    """
    if given.dry_run:
        return Target(given.hub, given.private, given.revision)
    target = Target(given.hub, given.private, given.revision, token_of_environment())
    check_remote(target)
    return target


def upload(folder: Path, target: Target, dry_run: bool) -> None:
    """Uploads an exported folder, or shows what would be uploaded.

    Args:
        folder: The folder.
        target: Where to.
        dry_run: Whether to show it only.

    Raises:
        EditError: If it could not be uploaded, with how to try again.
    """
    console, files = terminal(), files_of(folder)
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    drawn.add_column("file", overflow="fold")
    drawn.add_column("size", justify="right")
    for name, size in files.items():
        drawn.add_row(name, decimal(size))
    console.print(drawn)
    _warn_of_local_base(folder)
    where = f"{target.repo}{f', branch {target.branch}' if target.branch else ''}{', private' * target.private}"
    total = f"{counted(len(files), 'file')}, {decimal(sum(files.values()))}"
    if dry_run:
        console.print(f"{total} would be uploaded to {where}. Nothing was.", soft_wrap=True)
        return
    again = ["lightning-edit", "export", str(folder), "--hub", target.repo]
    again += ["--revision", target.branch] if target.branch else []
    again += ["--private"] * target.private
    try:
        address = upload_folder(folder, target)
    except EditError as error:
        raise EditError(f"{error} The export is whole in {folder}; upload it by `{shlex.join(again)}`.") from error
    console.print(f"{total} are on the hub in {where}: {address}", soft_wrap=True)


def _warn_of_local_base(folder: Path) -> None:
    """Says so where the card names a base model that nobody else has."""
    if ModelCard.load(folder / CARD).data.to_dict().get("base_model") is None:
        terminal(stderr=True).print(
            "The card names the base model by a folder of this machine, which tells others nothing. Export with the "
            "base's name on the hub (--model USER/NAME) for what you publish.",
            soft_wrap=True,
        )
