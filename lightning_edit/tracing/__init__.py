"""Causal tracing: which hidden states carry a fact, found by restoring them in a run whose subject was made noisy."""
