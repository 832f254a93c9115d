"""Checkpoint files of a run, and the classes that they may name."""
