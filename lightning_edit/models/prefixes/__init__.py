"""Text that is run once: keys and values of prefixes."""
