"""What edits are compared with that changes no weight: facts that are put before each prompt."""
