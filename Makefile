# Every target makes its own virtual environment in .venv when there is none (or when the lock has changed),
# and starts at once when there is.
#
#   make demo      track the recording that ships with the package, and score it against its truth
#   make test      the tests, without the slow ones
#   make test-all  the tests, all of them
#   make lint      style, types and import layers
#   make bench     speed of every kernel beside the naive formulation or a library
#   make format    let ruff put imports and layout in order
#   make clean     remove caches and the virtual environment

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
# One thread: on a small or shared machine the barriers of several thread pools cost more than they give.
ONE_THREAD := OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint bench format clean

help:
	@sed -n 's/^#   //p' Makefile

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "evhands: error: $(PYTHON) is Python %d.%d, and evhands wants 3.11 or newer. Install one and name it: make PYTHON=python3.12" % v[:2])'
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing the packages of requirements.lock into $(VENV) (once, one to a few minutes) ..."
	@$(RUN) -m pip install -qq "$$(grep '^torch==' requirements.lock)"
	@$(RUN) -m pip install -qq -r requirements.lock
	@$(RUN) -m pip install -qq --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: $(STAMP)
	@$(RUN) -m evhands demo

test: $(STAMP)
	$(ONE_THREAD) $(RUN) -m pytest -q -m "not slow"

test-all: $(STAMP)
	$(ONE_THREAD) $(RUN) -m pytest -q

lint: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

bench: $(STAMP)
	$(ONE_THREAD) $(RUN) benchmarks/run.py

format: $(STAMP)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .benchmarks
	find src tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
