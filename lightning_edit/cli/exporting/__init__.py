"""The command line's ``export``."""
