"""What people deploy and show: an update as a LoRA adapter, and the model card of what is exported."""
