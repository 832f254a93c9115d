# Two commands do everything: `make quickstart` edits the embedded model, `make test` runs the tests.
# Each sets up `.venv` with the pinned dependencies first, where that is not done yet.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: quickstart test lint benchmark clean

quickstart: $(INSTALLED)
	$(BIN)/python cli.py fit

test: $(INSTALLED)
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# mypy knows no package-dir: it looks at links that lie as the installed package does.
	rm -rf build/types && mkdir -p build/types/lightning_edit
	ln -s $(addprefix $(CURDIR)/,$(wildcard lightning_edit/*) callbacks configs datamodules) build/types/lightning_edit/
	cd build/types && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml

benchmark: $(INSTALLED)
	$(BIN)/python -m tests.benchmarks

# torch goes first and alone: asked for with the rest, a resolver may take another build of it.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, {sys.executable} is {v.major}.{v.minor}; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info
