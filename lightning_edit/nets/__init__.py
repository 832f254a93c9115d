"""Training of nets that change keys and gradients, by what edits made with them do to a model."""
