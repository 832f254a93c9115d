"""The command line of a checkout; an installed package has it as ``lightning-edit``."""

from lightning_edit.cli.main import main

if __name__ == "__main__":
    main()
