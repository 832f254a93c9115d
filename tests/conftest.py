"""What several tests need: the material beside the project, where it is there, and small real models."""

from pathlib import Path
from typing import Any

import pytest

# Lightning logs to the standard error of the moment when it is imported, which must not be that of a single test.
import lightning_edit.cli.fit  # noqa: F401
from lightning_edit.models.loading import load_tokenizer

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the project; the test skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"the reference data in {SHARED.name}/ beside the project is absent")
    return SHARED


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """The tokenizer of the embedded model."""
    return load_tokenizer("tiny")
