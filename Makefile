# On a machine with Python 3.11, make and a package registry: `make demo` and `make test` do the rest.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOWEST := .venv-lowest
LOWEST_EXTRAS ?= llm
export OMP_NUM_THREADS ?= 1
export POLARS_MAX_THREADS ?= 1

.PHONY: demo test test-all test-lowest check bench bench-run docs clean

# -- the two commands ------------------------------------------------------------------------------

demo: $(STAMP)  ## from nothing to a report on a small simulated service
	$(BIN)/longplay demo

test: $(STAMP)  ## what must hold; 6 minutes is the aim, 10 to 11 it takes
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow"

# -- the rest --------------------------------------------------------------------------------------

test-all: $(STAMP)  ## also what is slow; properties on three times as many examples, drawn anew
	HYPOTHESIS_PROFILE=wild $(BIN)/pytest -n 2 --dist loadfile

test-lowest:  ## the loop on the lowest versions that pyproject.toml allows; without torch: make test-lowest LOWEST_EXTRAS=
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python tests/lowest.py pins $(LOWEST_EXTRAS) > $(LOWEST)/pins.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -r $(LOWEST)/pins.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	$(LOWEST)/bin/python tests/lowest.py smoke

check: $(STAMP)  ## style, types, layers
	$(BIN)/ruff check src tests bench
	$(BIN)/ruff format --check src tests bench
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(STAMP)  ## redraw docs/benchmarks.md from the committed results
	$(BIN)/python bench/draw.py

bench-run: $(STAMP)  ## recompute every result (slow)
	$(BIN)/python bench/draw.py --run

docs: $(STAMP)  ## the documentation site, into site/
	$(BIN)/zensical build

clean:
	rm -rf $(VENV) $(LOWEST) site runs .pytest_cache .ruff_cache

# pip, not uv: pip finds the CPU build of the pinned torch where one is offered
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[llm,spark,dev]"
	touch $@
