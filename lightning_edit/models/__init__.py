"""The transformers model: its parts, its passes, and the layers to edit."""
