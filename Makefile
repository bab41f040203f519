# What a person does daily. `make setup` is what every other target begins with.

VENV    := .venv
PYTHON  := $(VENV)/bin/python
STAMP   := $(VENV)/.setup-stamp
CORE    := $(shell find engine -name '*.pyx' -o -name '*.pxd')
CONFIG  ?= configs/demo.yml
FOR     ?=
BENCH   ?=
EACH    ?=
VENUES  ?=
READS   ?= 100000000
SEEDS   ?= 100
FROM    ?= 1
SEED    ?=
MUTANT  ?=
JOBS    ?= $(shell nproc)
TESTS   ?= tests
WORKERS ?= 3

.PHONY: help setup run test lint fmt bench chaos cluster fuzz torn simulate simulate-fencing simulate-mutants clean
.DEFAULT_GOAL := help

help:
	@echo "make setup              .venv with the engine and everything its tests need"
	@echo "make run [FOR=20]       the engine on a venue in a box, with a live view"
	@echo "make test [TESTS=path]  the whole suite"
	@echo "make lint | make fmt    ruff and mypy | format the code"
	@echo "make bench [BENCH=bus] [FOR=60]  benchmarks beside their peers, one JSON object a line"
	@echo "make chaos [FOR=60]     real processes killed at random [SEED=n], and the books compared at the end"
	@echo "make cluster [FOR=30]   the engine across two hosts made of namespaces, on Ray (needs root)"
	@echo "make fuzz [FOR=60]      mutated frames through every venue's decoder; EACH=1000000 so many of every venue [VENUES=a,b]"
	@echo "make torn [READS=n]     reads of a shared book against a writer at full speed: none torn, none slow"
	@echo "make simulate [SEEDS=100] [FROM=1]   the engine under seeded faults; SEED=n tells one run's story, TABLE=1 what met what"
	@echo "make simulate-fencing [SEEDS=100]    two hosts that may trade one account, stopped and cut off at the worst time"
	@echo "make simulate-mutants [MUTANT=name]  which seeds show the engine without one of its safeguards"
	@echo "make clean              removes what was built (not .venv)"

setup: $(STAMP)

$(STAMP): pyproject.toml setup.py $(CORE)
	@sh scripts/setup.sh $(VENV)
	@touch $(STAMP)

run: setup
	@$(PYTHON) scripts/run_engine.py $(CONFIG) $(if $(FOR),--for $(FOR))

test: setup
	@$(PYTHON) -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

lint: setup
	@$(VENV)/bin/ruff check engine tests benchmarks scripts setup.py
	@$(VENV)/bin/ruff format --check engine tests benchmarks scripts setup.py
	@$(VENV)/bin/mypy

fmt: setup
	@$(VENV)/bin/ruff check --fix engine tests benchmarks scripts setup.py
	@$(VENV)/bin/ruff format engine tests benchmarks scripts setup.py

chaos: setup
	@$(PYTHON) -m engine.chaos $(if $(FOR),--for $(FOR)) $(if $(SEED),--seed $(SEED)) --config configs/two_venues.yml

fuzz: setup
	@$(PYTHON) -m engine.fuzzing $(if $(EACH),--each $(EACH) --jobs $(JOBS),$(if $(FOR),--for $(FOR))) $(if $(SEED),--seed $(SEED)) $(if $(VENUES),--venues $(VENUES)) --captures ../shared/captures

torn: setup
	@$(PYTHON) -m engine.fuzzing.torn --reads $(READS)

bench: setup
	@$(PYTHON) -c 'import PIL, sortedcontainers, order_book, nautilus_trader' 2>/dev/null || sh scripts/setup.sh $(VENV) bench \
		|| echo "bench: not all peers can be installed here; those that are missing are left out" >&2
	@$(PYTHON) -m benchmarks $(BENCH) $(if $(FOR),--for $(FOR))

cluster: setup
	@$(PYTHON) scripts/two_hosts.py $(if $(FOR),--for $(FOR))

simulate: setup
	@$(PYTHON) -m engine.simulation $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) --from $(FROM) --jobs $(JOBS)$(if $(TABLE), --table))

simulate-fencing: setup
	@$(PYTHON) -m engine.simulation --fencing $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) --from $(FROM) --jobs $(JOBS))

simulate-mutants: setup
	@$(PYTHON) -m tests.simulation.mutant_search --jobs $(JOBS) $(if $(MUTANT),--mutant $(MUTANT)) \
		$(if $(findstring command,$(origin SEEDS)),--seeds $(SEEDS) --from $(FROM))

clean:
	rm -rf build .pytest_cache .mypy_cache .ruff_cache
	find engine -name '*.c' -delete -o -name '*.so' -delete
