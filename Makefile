# Everything a fresh Debian 12 machine needs is installed by these targets; what already runs is used as it is.
.DEFAULT_GOAL := help
.PHONY: help setup engine base registry demo demo-wrap test lint unit e2e golden faults bench speed clean

PYTEST := .venv/bin/pytest --quiet --numprocesses=auto --maxprocesses=4

help: ## List the targets.
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

setup: ## Make .venv with trainpack and its development tools.
	@scripts/setup

engine: ## Make a container engine answer: use the one that runs, else install and start Debian's.
	@scripts/engine

base: setup engine ## Build the CPU base image.
	@scripts/base

registry: setup engine ## Start an image registry on this machine's loopback.
	@scripts/registry

demo: base registry ## Scaffold, build, test, run, push, attach and trace an image, from nothing.
	@.venv/bin/python scripts/demo.py scaffold

demo-wrap: base registry ## The same for an existing script, wrapped as it is: examples/digits.
	@.venv/bin/python scripts/demo.py wrap

test: lint unit e2e ## Set up, then lint, type-check and run all tests, with real containers.

lint: setup ## Check formatting, lint and types.
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/ruff check --quiet .
	@.venv/bin/mypy --no-error-summary

unit: setup ## Run the tests that need no engine.
	@scripts/test-services
	@$(PYTEST) tests/unit

e2e: base ## Run the tests with a real engine, a real registry and the real SDK.
	@scripts/test-services
	@$(PYTEST) --dist=loadfile tests/e2e

golden: setup ## Rewrite the golden files; read the difference before you commit it.
	@UPDATE_GOLDEN=1 $(PYTEST) tests/unit -k golden

faults: base ## Run every fault of a run with real containers, and rewrite docs/faults.md.
	@PYTHONPATH=tests .venv/bin/python -m faults

bench: setup engine ## Run the benchmarks and print their tables, but for the one of `make speed`.
	@for benchmark in $(filter-out benchmarks/builders.py,$(wildcard benchmarks/*.py)); do .venv/bin/python $$benchmark || exit 1; done

speed: setup engine ## Measure the oci builder beside the others, which takes long; write docs/speed.md.
	@.venv/bin/python benchmarks/builders.py --write

clean: ## Remove what the targets made in this folder, the environment included.
	@rm -rf .venv .demo build dist .mypy_cache .ruff_cache .pytest_cache
