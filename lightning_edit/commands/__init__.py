"""The commands beside fit and test: caches, updates, sweeps, comparisons."""
