"""The command line as ``python -m lightning_edit.cli``."""

from lightning_edit.cli.main import main

main()
