"""The configuration files that ship with the package."""
