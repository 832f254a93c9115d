"""What the command line knows before torch is imported: the help, and settings that are surely wrong."""
