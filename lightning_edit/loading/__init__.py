"""Models and tokenizers from files: whole, in parts, or offloaded, checked and fingerprinted."""
