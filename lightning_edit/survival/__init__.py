"""Whether edits are still there after what happens to a deployed model: quantization, fine-tuning, merging."""
