"""What several tests need: the material beside the project, where it is there, and small real models."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pytest

# Lightning logs to the standard error of the moment when it is imported, which must not be that of a single test.
import lightning_edit.cli.fit  # noqa: F401
from lightning_edit.loading.pretrained import load_tokenizer
from tests import shared_runs

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps second moments out of the user's own cache; commands that tests start inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        # Where matplotlib has its fonts already, as finding them again takes seconds.
        patch.setenv("MPLCONFIGDIR", matplotlib.get_configdir())
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the project; the test skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"the reference data in {SHARED.name}/ beside the project is absent")
    return SHARED


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of three updates, which is only read; its cache lies beside it."""
    return shared_runs.once(tmp_path_factory, "finished", shared_runs.command) / "version_0"


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """The tokenizer of the embedded model."""
    return load_tokenizer("tiny")
