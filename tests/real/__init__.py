"""A real chat model: fetched once, edited, asked."""
