"""The default demo: a small fictional world and a small model trained on it, both shipped with the package."""

from pathlib import Path

from lightning_edit.tiny.world import World

MODEL_PATH = Path(__file__).parent / "model"

__all__ = ["MODEL_PATH", "World"]
