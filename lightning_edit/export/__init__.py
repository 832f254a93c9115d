"""What people deploy and show: an update as a LoRA adapter or in a GGUF file, its model card, the hub."""
