# Everything that is done in this repository. `make` prints this list.
# Needs Python 3.11 to 3.13 with venv and pip, and git. uv comes into .tools, the environment into .venv.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install demo run test test-fast check lint types format generate verify lock clean \
  cluster cluster-down cluster-env images e2e scale bench latency learn calibrate parity faults

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
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## set up .venv from uv.lock

demo: $(INSTALLED) ## run the whole chain on a generated market, or on your bars: make demo BARS=bars.parquet
	@mkdir -p build
	$(BIN)/python -m cappuccino.entrypoints.demo $(if $(BARS),--bars "$(BARS)") $(if $(PORT),--port $(PORT))

run: $(INSTALLED) ## run the local cluster in this terminal
	$(BIN)/cappuccino run

test: $(INSTALLED) ## all tests, with a summary; the first run builds an API server from Go modules, which takes minutes
	@mkdir -p build
	$(BIN)/python -m hack.cluster build kube helm
	$(BIN)/pytest -n $(WORKERS) --junitxml=build/tests.xml

test-fast: $(INSTALLED) ## unit tests that take less than ten seconds each
	$(BIN)/pytest -n $(WORKERS) -m "not slow" tests/unit

cluster: $(INSTALLED) ## a real Kubernetes on this machine, for `make e2e` or for you
	@$(BIN)/python -m hack.cluster up

cluster-down: $(INSTALLED) ## remove it with all that it left
	@$(BIN)/python -m hack.cluster down

cluster-env: ## shell lines that point kubectl at it, for eval
	@$(BIN)/python -m hack.cluster env

images: $(INSTALLED) ## build the container images, with docker or buildah (NAMES="trader train": those)
	$(BIN)/python -m hack.images build $(NAMES)

e2e: $(INSTALLED) ## the whole path on a real cluster: images, chart, examples, faults (FAULTS=all: every one)
	@mkdir -p build
	$(BIN)/pytest -x -p no:cacheprovider tests/kubernetes $(if $(FAULTS),--faults=$(FAULTS)) --junitxml=build/e2e.xml

scale: $(INSTALLED) ## 10,000 Trials, 1,000 Traders, 100 Studies on a real API server; prints what it took
	$(BIN)/python -m tests.scale

bench: $(INSTALLED) ## training beside its peers and the machine's limit, 20 minutes (FAST=1: three; WRITE=1: into the docs)
	$(BIN)/python -m tests.bench $(SECTIONS) $(if $(FAST),--fast) $(if $(WRITE),--write)

latency: $(INSTALLED) ## from a closed bar to the order, memory, catching up, halts; up to 500 portfolios (FAST=1: only that it runs; WRITE=1)
	$(BIN)/python -m tests.speed $(SECTIONS) $(if $(FAST),--fast) $(if $(WRITE),--write)

learn: $(INSTALLED) ## what PPO learns of what can be had on markets with a known optimum (FAST=1: only that it runs)
	$(BIN)/python -m tests.learning $(if $(FAST),--fast)

calibrate: $(INSTALLED) ## who passes the gates on noise, and over planted edges (FAST=1: minutes; it goes on where it was)
	POLARS_MAX_THREADS=1 $(BIN)/python -m tests.calibrate --workers $(WORKERS) $(if $(FAST),--fast)

parity: $(INSTALLED) ## one bundle in the environment, the backtest and a real trader: how far apart they grow (FAST=1: small; WRITE=1)
	@mkdir -p build
	POLARS_MAX_THREADS=1 $(BIN)/python -m tests.parity $(if $(FAST),--fast) $(if $(ONLY),--only $(ONLY)) $(if $(WRITE),--write)

faults: $(INSTALLED) ## 10,000 orders under random faults and kills: books equal, ids once, all explained (FAST=1: 600; WRITE=1)
	@mkdir -p build
	$(BIN)/python -m tests.faults $(if $(FAST),--fast) $(if $(WRITE),--write)

check: lint types verify test ## what CI runs before the end-to-end path

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
