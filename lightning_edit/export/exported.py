"""Folders that were exported: whether one is, and which files it has."""

from pathlib import Path

from huggingface_hub import ModelCard
from yaml import YAMLError

from lightning_edit.errors import EditError
from lightning_edit.export.card import CARD, LARGEST, TAGS
from lightning_edit.storage.user.files import read_text

# Of our tags the one that no other tool writes.
OWN = TAGS[-1]
WEIGHTS = (".safetensors", ".gguf", ".bin")


def is_export(folder: Path) -> bool:
    """Whether a folder was written by ``export``: it holds weights, and a card that says so.

    Args:
        folder: Any path.
    """
    if not (folder / CARD).is_file() or not any(file.suffix in WEIGHTS for file in folder.iterdir()):
        return False
    try:
        data = ModelCard(read_text(folder / CARD, largest=LARGEST), ignore_metadata_errors=True).data
    except (ValueError, YAMLError):
        return False
    return OWN in (data.to_dict().get("tags") or ())


def files_of(folder: Path) -> dict[str, int]:
    """The files of an exported folder, by their names in it, and their sizes in bytes.

    Args:
        folder: The folder.

    Raises:
        EditError: If there is a link in it, or what is neither file nor folder.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise EditError(f"{path} is a link or no ordinary file, and `export` writes none. Delete it to upload.")
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path.stat().st_size
    return found
