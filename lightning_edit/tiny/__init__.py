"""The default demo: a small fictional world and two small models trained on it, all shipped with the package."""

from pathlib import Path

from lightning_edit.tiny.world import World

# The names by which settings refer to the models: `tiny` is dense, `tiny-moe` has experts.
MODELS = {"tiny": Path(__file__).parent / "model", "tiny-moe": Path(__file__).parent / "model_moe"}
MODEL_PATH = MODELS["tiny"]

__all__ = ["MODELS", "MODEL_PATH", "World"]
