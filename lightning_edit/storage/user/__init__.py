"""Files that a user brings."""
