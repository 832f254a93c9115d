"""The transformers model: its parts, its passes, how it is loaded and divided."""
