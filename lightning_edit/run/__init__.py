"""A run: the LightningModule, its state, and how it goes on after a stop."""
