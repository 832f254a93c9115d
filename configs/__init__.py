"""The configuration files that ship with the package."""

from pathlib import Path

CONFIGS = Path(__file__).parent
