"""What several tests need: the material beside the project, where it is there, and small real models."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the project; the test skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"the reference data in {SHARED.name}/ beside the project is absent")
    return SHARED
