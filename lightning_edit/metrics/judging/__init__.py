"""A language model that says whether an answer is right: behind an endpoint, or one of transformers'."""
