.DEFAULT_GOAL := help
# Simulator, servers and linters never run at the same time: figures and timing would suffer.
.NOTPARALLEL:

PYTHON ?= python3
ENGINE ?= sqlite
ARGS ?=
SEEDS ?= 150
SQLITE_SEEDS ?= 50
SOAK_SEEDS ?= 2000
ROUNDS ?= 10
SEED ?= 1
MINUTES ?= 60
FAILOVERS ?= 20
WORKERS ?= 2

BIN := .venv/bin
SYSTEM := $(if $(filter mariadb,$(ENGINE)),system)
STAMP := .venv/.installed
PYTEST := $(BIN)/python -m pytest
# A file stays with one worker; the long ones stand early in the order and begin early.
SPREAD := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

help:  ## list these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

install: $(STAMP)  ## make .venv with everything that requirements.lock pins, checked by hash

$(STAMP): requirements.lock pyproject.toml scripts/make-venv.sh
	@bash scripts/make-venv.sh "$(PYTHON)"
	@touch $(STAMP)

system:  ## install MariaDB's packages (Debian, as root); no service is started
	@bash scripts/install-system.sh

check: lint types layers unit  ## what every commit must pass, under two minutes

lint: install  ## style and banned calls
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install  ## mypy, strict
	$(BIN)/mypy src tests

layers: install  ## which room may import which
	PYTHONPATH=src $(BIN)/lint-imports

unit: install  ## pure tests: no network, no server, no real time
	$(PYTEST) -q tests/unit tests/tidy -m "not integration"

conformance: install  ## one suite per contract, against everything that claims to keep it
	$(PYTEST) -q tests/conformance -m "not integration"

integration: install system  ## real sockets, disks, signals and servers
	@bash scripts/install-system.sh haproxy systemd
	$(PYTEST) -q tests -m "integration and not alone" --durations=10 $(SPREAD)
	$(PYTEST) -q tests -m "integration and alone"

sim: install  ## a budget of simulator seeds (SEEDS=150, SQLITE_SEEDS=50), and the seeds that once found a bug
	$(PYTEST) -q tests/sim -m "not integration" $(SPREAD)
	$(BIN)/primacy sim run --seeds $(SEEDS)
	$(BIN)/primacy sim run --engine sqlite --seeds $(SQLITE_SEEDS)

spec: install  ## TLC: the specifications hold, every broken variant is rejected (ARGS="-k lease")
	@bash scripts/install-system.sh default-jre-headless
	$(PYTEST) -q tests/spec $(ARGS)

spec-soak: install  ## the specifications at larger bounds, by hand: hours
	@bash scripts/install-system.sh default-jre-headless
	SPEC_BOUNDS=soak $(PYTEST) -q tests/spec -k passes $(ARGS)

test: check conformance spec sim integration  ## all that CI runs, installs what it needs

soak: install  ## the long simulator run (SOAK_SEEDS=2000), by hand
	$(BIN)/primacy sim run --seeds $(SOAK_SEEDS)
	$(BIN)/primacy sim run --engine sqlite --seeds $(SOAK_SEEDS)

soak-faults: install $(SYSTEM)  ## every fault ROUNDS times, then 100 random ones and pairs; hours
	$(BIN)/python benchmarks/failover.py --engine $(ENGINE) --rounds $(ROUNDS) $(ARGS)
	$(BIN)/python benchmarks/failover.py --engine $(ENGINE) --rounds $(ROUNDS) --profile fast $(ARGS)
	$(BIN)/primacy demo --engine $(ENGINE) --fault random --rounds 100 --seed $(SEED) $(ARGS)

soak-sqlite: install  ## 500 kills, 20 failovers counted through (FAILOVERS=20), 2 GB, 100,000 random statements per mode, by hand
	$(BIN)/python -m tests.integration.sqlite.crashing --kills 500 --seed $(SEED)
	$(BIN)/python -m tests.integration.sqlite.counting --failovers $(FAILOVERS) --seed $(SEED)
	$(BIN)/python benchmarks/sqlite_growth.py
	$(BIN)/python -m tests.unit.engines.sqlite.storage.random_sql --statements 100000 --seed $(SEED)

mutants: install  ## plant each known bug and see the simulator find it
	$(BIN)/python -m tests.sim.mutants $(ARGS)

demo: install $(SYSTEM)  ## three servers, one fault after another (ENGINE=sqlite, ARGS="--fault crash")
	$(BIN)/primacy demo --engine $(ENGINE) $(ARGS)

calm: install $(SYSTEM)  ## MINUTES on busy cores with short stops: failovers that nobody needed (ARGS="--profile fast")
	$(BIN)/python benchmarks/false_failovers.py --engine $(ENGINE) --minutes $(MINUTES) $(ARGS)

bench: install $(SYSTEM)  ## figures beside a floor measured in the same run; never fails on a time
	$(BIN)/python benchmarks/failover.py --engine $(ENGINE) --rounds $(ROUNDS) $(ARGS)
	$(BIN)/python benchmarks/sqlite.py

golden: install  ## accept what the machines now do; then read the diff
	REWRITE=1 $(PYTEST) -q tests/unit -k "script or golden"
	git diff --stat -- '*/testdata/*' docs/openapi.json

fix: install  ## format and repair what can be repaired
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: install  ## pin the dependencies of pyproject.toml again, with hashes
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --extra mariadb --extra http \
		--group dev pyproject.toml -o requirements.lock

.PHONY: help install system check lint types layers unit conformance integration spec spec-soak sim \
	test soak soak-faults soak-sqlite mutants demo calm bench golden fix lock
