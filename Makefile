# `make` alone says what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SHELL := /bin/bash
# Several processes, a file of tests at a time: what a file's tests share is made once. Long files come first
# (tests/conftest.py). The fast tests often wait, for sockets and other programs: two processes a core do that together.
WORKERS ?= 4
PYTEST := $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder --durations=25

# Tests start several hundred programs of this package: compiled once, not each time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help venv demo docs test test-fast test-slow fuzz lint format clean

help: ## what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

venv: $(STAMP) ## the virtual environment in .venv, with everything (8 GB: torch comes with its GPU packages)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "edgecnn needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1): make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments: on Debian, apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV): a few minutes, once."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]" --constraint constraints.txt
	@touch $@

demo: $(STAMP) ## convert a detector and a segmenter, run them on footage, and measure them: see demo/
	$(BIN)/edgecnn demo --out demo

docs: $(STAMP) ## the documentation site, in build/site; a broken link fails
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/site/assemble.py
	$(BIN)/zensical build --strict

test: $(STAMP) ## lint, types, import rules, and beside them tests and the packaging check (9 minutes on 2 cores)
	$(MAKE) --no-print-directory --jobs 2 lint test-fast

test-fast: $(STAMP) # no types and rules
	$(PYTEST) --numprocesses $(WORKERS) -m "not slow and not device"

test-slow: $(STAMP) ## the tests that take longer (20 minutes on 2 cores)
	$(PYTEST) --numprocesses 2 -m "slow and not device"

fuzz: $(STAMP) ## all that reads foreign bytes, for an hour, or for MINUTES=...
	$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),60)

lint: $(STAMP) ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers 2 edgecnn tests benchmarks examples
	$(BIN)/lint-imports --no-logo

format: $(STAMP) ## bring the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what was built, .venv too
	rm -rf $(VENV) build dist demo .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
