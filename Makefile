.DEFAULT_GOAL := help
.PHONY: help up down status test test-long lint unit e2e bench clients suites schema lock install dev

FLEET ?= labfleet
HOSTS ?=
ALL ?=
PY := .venv/bin/python
SOURCES := proto services cli tests
QUICK := tests/unit tests/simulation tests/architecture
PARTS := tests/contract tests/integration
# `make test` runs these beside those that drive a fleet, which wait more than they reckon.

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install:
	@deploy/install.sh

dev:
	@deploy/install.sh dev

up: install ## start a whole fleet on this machine (HOSTS=3 for three virtual hosts, FLEET=name)
	@.venv/bin/labfleet up --fleet $(FLEET) $(if $(HOSTS),--hosts $(HOSTS))

down: install ## stop the services, containers live on (ALL=1 removes everything)
	@.venv/bin/labfleet down --fleet $(FLEET) $(if $(ALL),--all)

status: install ## services, hosts, containers
	@.venv/bin/labfleet status --fleet $(FLEET)

test: dev lint clients ## lint, types, and every test but the long ones
	@nice $(PY) -m pytest -q -m "not long" $(QUICK) $(PARTS) > .parts.log 2>&1 & parts=$$!; \
	trap 'kill $$parts 2>/dev/null' EXIT INT TERM; \
	$(PY) -m pytest -m "not long" --durations=10 tests/e2e; status=$$?; \
	wait $$parts || status=1; cat .parts.log; exit $$status

test-long: dev lint clients ## every test, with the ones that take longer
	@$(PY) -m pytest --timeout 1800 -m "long or not long"

lint: dev ## style, types, walls between rooms, dependencies
	@.venv/bin/ruff format --check -q $(SOURCES)
	@.venv/bin/ruff check -q $(SOURCES)
	@.venv/bin/mypy
	@.venv/bin/lint-imports > .lint.log || { cat .lint.log; exit 1; }
	@.venv/bin/deptry . > .lint.log 2>&1 || { cat .lint.log; exit 1; }

unit: dev ## only the quick tests that need no other program
	@$(PY) -m pytest -q $(QUICK)

e2e: dev ## only the tests that drive a fleet with the docker command line
	@$(PY) -m pytest -q tests/e2e

bench: dev ## side by side with dockerd where it is installed
	@$(PY) -m tests.bench

clients: dev ## fetch the clients of other projects that tests drive, unless they are there
	@$(PY) -m tests.farm.environments

suites: dev ## the test suites of other projects, on one host and on three
	@$(PY) -m tests.suites

schema: dev ## write the JSON Schemas of all messages
	@$(PY) -m labfleet_proto.schema proto/schema

lock: dev ## pin all dependencies anew, with hashes and without any index address
	@.venv/bin/uv pip compile -q pyproject.toml deploy/build.in --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-header --extra api --extra image-store --extra runtime-agent --extra network --extra cli -o requirements.lock
	@.venv/bin/uv pip compile -q pyproject.toml deploy/build.in -c requirements.lock --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-header --all-extras -o requirements-dev.lock
	@for name in tests/suites/docker-py tests/suites/aiodocker tests/suites/oras tests/clients/python tests/fuzz/schemathesis; do \
	  .venv/bin/uv pip compile -q $$name.in --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	    --no-header -o $$name.lock; done
