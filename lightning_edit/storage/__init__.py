"""Files: atomic writes, caches, fingerprints, checkpoints, the folder of a run."""
