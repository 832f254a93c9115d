"""What of a model can be edited, found by structure and by running a few tokens."""
