# What people type. Everything works from a clean clone with Python 3.11, git, make and root.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
HOSTS  ?= 3
SEEDS  ?= 300
SWEEPS ?= 5
SEED   ?= 1
ROUNDS ?= 3
MINUTES ?= 30
FUZZ_SECONDS ?= 120

.PHONY: up hosts down status test lint test-unit test-lab test-beside test-operations reference sim linearizability bench bench-gossip bench-soak fuzz bench-growth bench-profile clean help sanity test-vm test-kernel molecule bench-playbooks
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(VENV)/.made: pyproject.toml agent/pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV) 2>/dev/null || { apt-get update -qq && apt-get install -y -qq python3-venv && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ./agent '.[test,lint]'
	@touch $@

up: hosts ## three hosts on this machine, a cluster on them, a demo service on every host's port 8080
	$(BIN)/ansible-playbook -i inventories/lab.yml site.yml
	tests/lab/lab images
	$(BIN)/ansible-playbook -i inventories/lab.yml playbooks/demo.yml

hosts: $(VENV)/.made ## the bare hosts of `up`, and the engine below them
	$(BIN)/ansible-playbook playbooks/lab.yml -e lab_hosts=$(HOSTS)

down: ## remove the hosts and everything that `up` made
	tests/lab/lab down

status: ## what runs
	tests/lab/lab status

lint: $(VENV)/.made ## style, types, layers, playbooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	tests/ansible-lint

test-unit: $(VENV)/.made ## seconds: everything that needs no hosts
	$(BIN)/pytest -q -n auto --dist worksteal tests/unit tests/sim

test-lab: $(VENV)/.made ## minutes: three real hosts, real engines, the real docker CLI
	$(BIN)/pytest -q tests/lab tests/compat
	$(BIN)/pytest -q tests/beside

reference: $(VENV)/.made ## docs/modules.md anew, from the modules' documentation
	$(BIN)/python docs/module_reference.py

test-operations: $(VENV)/.made ## minutes: playbooks for operators and all modules on three real hosts
	$(BIN)/pytest -q tests/operations

test-beside: $(VENV)/.made ## minutes, and part of test-lab: every command of the docker CLI, here and on a real Docker Swarm of the same hosts
	$(BIN)/pytest -q tests/beside

sanity: $(VENV)/.made ## what ansible-test says of the collection, and its own way of running unit tests
	tests/ansible-test sanity
	tests/ansible-test units

test-vm: $(VENV)/.made ## a quarter of an hour: three managers on virtual machines, one of which loses its power
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/molecule test --scenario-name default

test-kernel: $(VENV)/.made ## minutes: the data plane on Debian's kernel, with IPVS and WireGuard, in one virtual machine
	$(BIN)/python -m tests.lab.on_kernel $(KERNEL_TESTS)

molecule: $(VENV)/.made ## half an hour: all scenarios on virtual machines, one after the other
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/molecule test --all

sim: $(VENV)/.made ## a long sweep: make sim SEEDS=10000
	SEEDS=$(SEEDS) $(BIN)/pytest -q tests/sim

linearizability: $(VENV)/.made ## a long sweep of accidents on three and five managers: make linearizability SWEEPS=10
	SWEEPS=$(SWEEPS) SEED=$(SEED) $(BIN)/pytest -q -s tests/lab/test_linearizability.py

# The hosts come before the unit tests, many of which talk to the engine below the hosts and are skipped without it.
test: lint sanity hosts test-unit ## all of it, in less than an hour on 2 cores; virtual machines beside hosts, which mostly wait
	$(MAKE) -j2 test-lab test-vm

bench: $(VENV)/.made ## half an hour: beside Docker Swarm on the same hosts, into docs/benchmarks.md (ROUNDS=3)
	command -v dnsmasq >/dev/null || apt-get install -y -qq --no-install-recommends dnsmasq-base
	$(BIN)/python -m tests.bench --rounds $(ROUNDS)

bench-growth: $(VENV)/.made ## a quarter of an hour: how cost grows to 1,000 nodes and 30,000 tasks, into docs/growth.md
	$(BIN)/python -m tests.bench.growth --out docs/growth.md

bench-profile: $(VENV)/.made ## minutes: where the agent's processor time goes, into docs/profiles.md
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[profile]'
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/python -m tests.bench.profiles

bench-playbooks: $(VENV)/.made ## minutes: how long site.yml, adding a host and an upgrade under load take, as in docs/operating.md
	$(BIN)/python -m tests.bench.playbooks

bench-gossip: $(VENV)/.made ## minutes: the gossip on real sockets beside Debian's serf, the driver alone, the simulation by size
	command -v serf > /dev/null || { apt-get update -qq && apt-get install -y -qq serf; }
	$(BIN)/python -m tests.bench.gossip_real
	$(BIN)/python -m tests.bench.gossip_driver
	$(BIN)/python -m tests.bench.gossip_sizes

bench-soak: $(VENV)/.made ## half an hour: CPU hogs on every lab host, nobody may be declared down (MINUTES=30)
	$(BIN)/python -m tests.bench.gossip_soak --minutes $(MINUTES)

fuzz: $(VENV)/.made ## coverage-guided fuzzing of the gossip's parsers (FUZZ_SECONDS=120)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	mkdir -p .cache/fuzz
	$(BIN)/python tests/fuzz/gossip_packets.py .cache/fuzz -max_total_time=$(FUZZ_SECONDS) -max_len=3000 -artifact_prefix=.cache/

clean: down ## also the caches and the environment
	rm -rf $(VENV) .cache .lab
