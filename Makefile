# `make` alone lists the targets. Steps of more than a line are in scripts/.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
SHELL := /bin/sh

BIN := .venv/bin
# Test processes; ARGS goes to the command behind a target: make test ARGS="-k claim tests/unit"
JOBS ?= 2
ARGS ?=
NAME ?=

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

.PHONY: setup
setup: ## install everything into .venv, from nothing (PYTHON=... chooses the interpreter)
	@sh scripts/setup.sh

.PHONY: run
run: setup ## the whole system on this machine, with its own Postgres and NATS
	@$(BIN)/prebuilds-embedded run $(ARGS)

.PHONY: smoke
smoke: setup ## the whole system in a folder of its own: one claim from end to end, then away
	@$(BIN)/prebuilds-embedded smoke $(ARGS)

.PHONY: test
test: setup ## all tests (JOBS=2 processes, ARGS for pytest)
	@$(BIN)/python scripts/step.py test $(BIN)/pytest -n $(JOBS) $(ARGS)

.PHONY: lint
lint: setup ## style, types, imports, protos, lock and generated code
	@$(BIN)/python scripts/lint.py

.PHONY: format
format: setup ## format Python and protos, apply safe fixes
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format
	@if [ -d protos ]; then $(BIN)/buf format --write; fi

.PHONY: lock
lock: setup ## after a change of dependencies: uv.lock and .venv anew (ARGS="--upgrade-package grpcio")
	@$(BIN)/python scripts/step.py lock .uv/bin/uv lock $(ARGS)
	@sh scripts/setup.sh

.PHONY: proto
proto: setup ## generate libs/api from protos/
	@$(BIN)/python scripts/proto.py

.PHONY: proto-check
proto-check: setup ## is the generated code what protos/ makes?
	@$(BIN)/python scripts/proto.py --check

.PHONY: migration
migration: setup ## after a change of the models: write the first migration anew
	@$(BIN)/python scripts/migration.py

.PHONY: migrations-check
migrations-check: setup ## do the migrations make the schema of the models?
	@$(BIN)/pytest tests/architecture -k migrations $(ARGS)

.PHONY: conformance
conformance: setup ## the cases of tests/conformance
	@$(BIN)/python scripts/step.py conformance $(BIN)/pytest -n $(JOBS) tests/conformance $(ARGS)

.PHONY: bench
bench: setup ## a benchmark: make bench NAME=reconcile (ARGS for it; without a name, list them)
	@$(BIN)/python -m tests.bench $(NAME) $(ARGS)

.PHONY: transcript
transcript: setup ## play pools through by the command line, up to 30 minutes: docs/transcripts/pools.md
	@$(BIN)/python scripts/transcript.py $(ARGS)

.PHONY: clean
clean: ## remove .venv, .uv and caches; the state in .prebuilds stays
	@sh scripts/clean.sh
