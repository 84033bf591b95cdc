# Everything that people and CI type. `make help` lists it.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo up install services format check test storm bench clean

help:  ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.demo  ## Tag the sample tickets with a real queue and worker, then clean up
	@$(BIN)/tagmill demo

up: $(VENV)/.demo  ## Run a broker and a worker until Ctrl-C
	@$(BIN)/tagmill up

install: $(VENV)/.dev  ## Make the virtual environment with everything in it

services:  ## Install the servers that tests run against (Debian, as root)
	@deploy/services.sh

format: $(VENV)/.dev  ## Format and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

check: $(VENV)/.dev  ## Lint, types, import rules, unit and port tests: under two minutes
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/pytest -q tests/unit tests/ports tests/guarantees/test_outbound.py

test: services $(VENV)/.dev  ## Everything, with real servers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/pytest tests -n 2 --dist loadfile

storm: $(VENV)/.dev  ## All faults again, 30 times as large, and ten minutes of random ones on each broker
	@TAGMILL_FAULT_SIZE=30 TAGMILL_STORM_S=600 TAGMILL_FAULT_LINES=docs/storm.jsonl \
		$(BIN)/pytest tests/faults tests/guarantees/test_broken_connections.py tests/guarantees/test_poison.py --timeout 1800

bench: $(VENV)/.dev  ## Measure the queue beside plain Celery
	@$(BIN)/tagmill bench queue --json

clean:  ## Remove what the targets made
	rm -rf $(VENV) .tagmill .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info tagmill.db*

$(VENV)/bin/python:
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing into $(VENV) (torch and transformers: some minutes the first time)"
	@$(PIP) -e '.[worker,http,demo,flower]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing into $(VENV) with what development needs"
	@$(PIP) -e '.[worker,int8,http,demo,flower,integrations,postgres,parquet,remote,lab,dev]'
	@touch $@ $(VENV)/.demo
