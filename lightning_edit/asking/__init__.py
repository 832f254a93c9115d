"""How a model is asked and what it writes: chat template, tokens, generation, conversation."""
