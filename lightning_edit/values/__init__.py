"""Value vectors: how they are optimized and cached."""
