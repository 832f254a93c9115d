"""Edits judged as people judge: the model answers freely, and its answer is right or wrong (WILD, arXiv 2502.11177)."""
