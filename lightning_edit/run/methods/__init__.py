"""The LightningModules of methods that are no least squares."""
