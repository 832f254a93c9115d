# Two commands do everything: `make quickstart` edits the embedded model, `make test` runs the tests
# (`make test-all` those too that are slow by nature: several machines, benchmarks).
# Each sets up `.venv` with the pinned dependencies first, where that is not done yet.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: quickstart quickstart-moe real real-model test test-all test-oldest test-newest test-quantized test-loggers coverage lint docs benchmark clean

quickstart: $(INSTALLED)
	$(BIN)/python cli.py fit --config configs/models/tiny.yaml

# The embedded model with experts.
quickstart-moe: $(INSTALLED)
	$(BIN)/python cli.py fit --config configs/models/tiny_moe.yaml

# A real chat model, downloaded once (93 MB) into a cache outside the repository: some minutes.
real: $(INSTALLED)
	$(BIN)/python -m tests.real

# That model alone, for the tests that need it; they are skipped where it is not there.
real-model: $(INSTALLED)
	$(BIN)/python -m tests.real.model

# Two workers with one thread each: no test is large enough for a second thread to help.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2
WHOLE_MODULES := --dist loadscope --no-loadscope-reorder

# Each begins with a half of the tests, in order; whoever is done first takes half of what the other has left.
test: $(INSTALLED)
	$(PYTEST) --dist worksteal -m 'not slow'

test-all: $(INSTALLED)
	HOSTILE_CASES=90 $(PYTEST) $(WHOLE_MODULES)

coverage: $(INSTALLED)
	HOSTILE_CASES=90 $(PYTEST) $(WHOLE_MODULES) --cov --cov-report term

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# mypy knows no package-dir: it looks at links that lie as the installed package does.
	rm -rf build/types && mkdir -p build/types/lightning_edit
	ln -s $(addprefix $(CURDIR)/,$(wildcard lightning_edit/*) callbacks configs datamodules) build/types/lightning_edit/
	cd build/types && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml

# A short part of the tests with the oldest versions that pyproject.toml allows, and with the newest there are; each has
# a folder of its own, and takes the other packages as pip finds them.
SHORT := tests/test_package.py tests/test_quickstart.py tests/solvers/test_solvers.py tests/models/test_decoder.py \
	tests/values/test_mpes.py tests/updates/test_model_update.py
OLDEST := $(shell sed -n 's/^    "\(torch\|lightning\|transformers\|torchmetrics\|datasets\|jsonargparse\)\(\[[a-z]*\]\)\?>=\([0-9.]*\)",/\1\2~=\3.0/p' pyproject.toml)
NEWEST := --upgrade torch lightning transformers torchmetrics datasets jsonargparse[signatures]

test-oldest: .venv-oldest/.installed
	.venv-oldest/bin/python -m pytest $(SHORT)

test-newest: .venv-newest/.installed
	.venv-newest/bin/python -m pytest $(SHORT)

.venv-oldest/.installed .venv-newest/.installed: .venv-%/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet $(if $(filter oldest,$*),$(OLDEST),$(NEWEST)) --editable '.[dev]'
	touch $@

# torchao is loaded with transformers wherever it is installed and says what it could not load, so it comes last.
test-quantized: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bnb,torchao]'
	$(BIN)/python -m pytest tests/loading/test_quantization.py tests/export/test_quantized.py tests/real/test_quantized.py
	$(BIN)/python -m pytest tests/docs/test_examples.py tests/survival/test_command.py -k quantized

# W&B and MLflow bring many packages that nothing else needs.
test-loggers: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[wandb,mlflow]'
	$(BIN)/python -m pytest tests/loggers

# The environment variable silences an advertisement, not a warning.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

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
	rm -rf $(VENV) .venv-oldest .venv-newest runs build *.egg-info
