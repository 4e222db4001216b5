# Everything that is done in this repository. `make` prints this list.
# Needs Python 3.11 to 3.13 with venv and pip, and git. uv comes into .tools, the environment into .venv.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install demo run test test-fast check lint types format generate verify lock clean

SUITABLE := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c '$(SUITABLE)' 2>/dev/null && echo $$p && break; done || true)
WORKERS ?= 2
UV := .tools/uv/bin/uv
BIN := .venv/bin
INSTALLED := .venv/.installed
export UV
# One thread in each numeric library: the processes are what runs in parallel.
export OMP_NUM_THREADS ?= 1

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## set up .venv from uv.lock

demo: $(INSTALLED) ## run the whole chain on a generated market, or on your bars: make demo BARS=bars.parquet
	@mkdir -p build
	$(BIN)/python -m cappuccino.entrypoints.demo $(if $(BARS),--bars "$(BARS)") $(if $(PORT),--port $(PORT))

run: $(INSTALLED) ## run the local cluster in this terminal
	$(BIN)/cappuccino run

test: $(INSTALLED) ## all tests, with a summary
	@mkdir -p build
	$(BIN)/pytest -n $(WORKERS) --junitxml=build/tests.xml

test-fast: $(INSTALLED) ## unit tests that take less than ten seconds each
	$(BIN)/pytest -n $(WORKERS) -m "not slow" tests/unit

check: lint types verify test ## what CI runs

lint: $(INSTALLED) ## style, formatting, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(INSTALLED) ## mypy, strict
	$(BIN)/mypy

format: $(INSTALLED) ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

generate: $(INSTALLED) ## write crds/ and docs/reference/ from the code
	$(BIN)/python hack/generate.py

verify: $(INSTALLED) ## fail when a generated file or uv.lock has drifted
	hack/verify.sh

lock: $(UV) ## update uv.lock after a change of pyproject.toml
	$(UV) lock

clean: ## remove what can be made again, but .tools
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(UV):
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(SUITABLE)' || \
	  { echo "no Python 3.11 to 3.13 here: install one, or name it with make PYTHON=/path/to/python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv: install it (Debian, Ubuntu: apt install python3-venv) and run make again" >&2; exit 2; }
	$(PYTHON) -m venv .tools/uv
	.tools/uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9'

$(INSTALLED): uv.lock pyproject.toml | $(UV)
	$(UV) sync --locked --all-extras --python $(PYTHON)
	@touch $@
