"""Settings that find themselves: small real edits, by successive halving, from a model to a preset."""
