# One door for developers. Every recipe makes .venv when there is none and can be run alone.
# Progress in words, no step needs root but `make test`, which may install Debian's PostgreSQL.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PYTHONPATH :=

.PHONY: help venv demo test faults check bench discovery docs lock format clean

help: ## Show these recipes
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

venv: $(READY) ## Make the virtual environment from requirements.lock

$(READY): requirements.lock pyproject.toml tools/venv.sh
	@bash tools/venv.sh $(VENV)

demo: $(READY) ## Play the whole story on a sample vendor (no root, no apt, nothing left running)
	@$(BIN)/obhut demo

check: $(READY) ## Lint, types, import rules, unit tests, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q -n 2 tests/unit -m "not slow"

test: $(READY) ## Run every test, three files at a time; installs Debian's PostgreSQL where it is missing
	@bash tools/debian.sh
	@bash tools/samples.sh
	$(BIN)/pytest tests -n 3 --dist loadfile --no-loadscope-reorder

faults: $(READY) ## Kill and damage at every step, without the other tests
	@bash tools/debian.sh
	@bash tools/samples.sh
	$(BIN)/pytest tests -m fault

bench: $(READY) ## Measure speed against pg_dump and hand-written SQL; writes build/bench.json; PARTS="erase restore" for some
	@mkdir -p build
	PYTHONPATH=. $(BIN)/python -m bench $(PARTS)

discovery: $(READY) ## Measure how well personal columns are found, beside dbslice and pg_anon; adds to build/bench.json
	@mkdir -p build
	PYTHONPATH=. $(BIN)/python -m bench.discovery

docs: $(READY) ## Write the generated parts of the reference from the code
	@cd tools && ../$(BIN)/python reference.py

lock: $(READY) ## Resolve the dependencies anew into requirements.lock
	$(BIN)/python tools/lock.py

format: $(READY) ## Format the code and apply safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove everything that the recipes made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
