"""Updates of a model: added, written, read, undone."""
