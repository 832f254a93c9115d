"""Keys of edits and of ordinary text, and their second moments."""
