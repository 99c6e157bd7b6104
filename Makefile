# The verbs of this checkout; each does the set-up that it needs, once.

.DEFAULT_GOAL := help
.PHONY: help setup demo check format test bench lock
MAKEFLAGS += --no-print-directory
RUFF := .venv/bin/ruff
PACKAGES := orchestrator specs runtime bridge

help:
	@echo 'make demo    bring the guest book up and write an entry into it'
	@echo 'make test    run every test (root; makes its own networks and state)'
	@echo 'make check   format, lint, types, layers'
	@echo 'make format  put the sources into their form'
	@echo 'make bench   measure start-up, container start, loads of files, and stacks beside docker compose'
	@echo 'make setup   only the set-up: Debian packages, virtual environment'
	@echo 'make lock    write requirements/*.lock anew'

setup:
	@scripts/setup dev

demo:
	@scripts/setup
	@scripts/demo

check: setup
	$(RUFF) format --check .
	$(RUFF) check .
	.venv/bin/mypy
	.venv/bin/lint-imports

format: setup
	$(RUFF) check --fix .
	$(RUFF) format .

test: setup
	@scripts/test $(PYTEST)

bench:
	@scripts/setup bench
	@.venv/bin/python tests/bench/run.py
	@.venv/bin/python tests/bench/loads.py
	@.venv/bin/python tests/bench/drift.py
	@.venv/bin/python tests/bench/compose.py
	@.venv/bin/python -m tests.bench.syncing
	@.venv/bin/python -m tests.bench.watch
	@.venv/bin/python -m tests.bench.following

lock: setup
	@scripts/lock
