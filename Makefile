# Two commands do all the set-up: make run, make test. `make help` lists the rest.

.DEFAULT_GOAL := help
.PHONY: help run test test-compose lint fmt build bench scale chaos sim model mutations mutants etcd deploy-tools promtool

CARGO ?= cargo
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
# A machine without nextest has cargo's own runner: slower, and just as good.
HAS_NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)

help:
	@echo 'make run      a whole cluster on this machine, live; ARGS="--embedded" without etcd, ARGS="--for 20s" for so long'
	@echo 'make test     everything that decides whether a change lands'
	@echo 'make test-compose   deploy/compose in real containers: needs a Docker engine with docker compose or docker-compose;'
	@echo '              ARGS="--tool docker-compose" for one of them; images are built here, from Debian packages'
	@echo 'make lint     formatting and clippy'
	@echo 'make bench    figures, side by side; ARGS="--quick" for whether it works'
	@echo 'make scale    100,000 regions on 100 datanodes, and what they cost; ARGS="--quick" for whether it works'
	@echo 'make chaos    real faults and what they cost; FAULT=leader-kill or FAULT=etcd- for some, ROUNDS=3, ARGS="--quick"'
	@echo '              FAULT=region- for those of regions: datanodes lost, regions moved, nodes drained'
	@echo 'make sim      whole clusters in virtual time, a seed each; SEEDS=2000 for more, SEED=7 for one, ARGS="--trace" for its lines'
	@echo 'make model    searches every state of leases and moves within bounds, then removes each rule; ARGS="--steps" for the traces'
	@echo 'make mutations  only the second half of it'
	@echo 'make mutants  is there a test for each decision of the core? takes an hour; ARGS="-f metasrv/core/src/lease.rs" for a file'
	@echo 'make fmt      formats everything'
	@echo 'make build    the programs: target/debug/metasrv, metactl, datanode'

build:
	$(CARGO) build -p metasrv -p datanode --bins

# Without etcd there is the embedded store: no reason to install anything.
run: $(if $(findstring --embedded,$(ARGS)),,etcd) build
	$(TARGET)/debug/metasrv playground $(ARGS)

# Tests that start programs find them here, built once, before any of them runs.
test: export METASRV_BIN_DIR := $(TARGET)/debug
test: lint etcd deploy-tools promtool build
ifeq ($(HAS_NEXTEST),yes)
	$(CARGO) test --workspace --doc --quiet
	$(CARGO) nextest run --workspace
else
	$(CARGO) test --workspace --no-fail-fast -- --test-threads=2
endif

lint:
	@if $(CARGO) fmt --version >/dev/null 2>&1; then set -x; $(CARGO) fmt --all --check; \
	else echo 'note: rustfmt is not installed (rustup component add rustfmt): formatting is not checked'; fi
	@if $(CARGO) clippy --version >/dev/null 2>&1; then set -x; $(CARGO) clippy --workspace --all-targets -- -D warnings; \
	else echo 'note: clippy is not installed (rustup component add clippy): lints are not checked'; fi

fmt:
	$(CARGO) fmt --all

bench: etcd
	$(CARGO) build --release -p metasrv -p datanode -p metasrv-tests --bins
	METASRV_BIN_DIR=$(TARGET)/release $(TARGET)/release/bench $(ARGS)

scale: etcd
	$(CARGO) build --release -p metasrv -p metasrv-tests --bins
	METASRV_BIN_DIR=$(TARGET)/release $(TARGET)/release/scale $(ARGS)

# Network namespaces need root.
chaos: etcd
	$(CARGO) build --release -p metasrv -p datanode -p metasrv-tests --bins
	METASRV_BIN_DIR=$(TARGET)/release $(TARGET)/release/chaos \
		$(if $(FAULT),--fault $(FAULT)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(ARGS)

# In debug where time is short: the programs are there already, and figures are those of debug builds.
PROFILE ?= release
test-compose:
	$(CARGO) build --profile $(if $(filter debug,$(PROFILE)),dev,$(PROFILE)) -p metasrv -p datanode -p metasrv-tests \
		--bin metasrv --bin metactl --bin datanode --bin compose
	METASRV_BIN_DIR=$(TARGET)/$(PROFILE) $(TARGET)/$(PROFILE)/compose $(ARGS)

SEEDS ?= 200
sim:
	$(CARGO) build --release -p metasrv-sim --bin sim
	$(TARGET)/release/sim $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) $(ARGS)

model:
	$(CARGO) build --release -p metasrv-proof --bin model
	$(TARGET)/release/model $(ARGS)

mutations:
	$(CARGO) build --release -p metasrv-proof --bin model
	$(TARGET)/release/model --mutations $(ARGS)

# Ends with the number of mutants that no test noticed: docs/proof.md lists them.
mutants:
	@$(CARGO) mutants --version >/dev/null 2>&1 || { echo 'cargo-mutants is not installed: cargo install cargo-mutants --locked'; exit 1; }
	$(CARGO) mutants -p metasrv-core -o $(TARGET) $(ARGS) -- --lib || true
	@mkdir -p $(TARGET)/figures
	@missed=$$(wc -l <$(TARGET)/mutants.out/missed.txt); echo "figure mutants_missed $$missed mutants"; \
		printf '{\n  "mutants_missed": %s\n}\n' "$$missed" >$(TARGET)/figures/mutants.json

etcd:
	@sh tools/install-etcd.sh

# kubectl, schemas of Kubernetes, PyYAML: what deploy/ is checked with.
deploy-tools:
	@sh tools/install-deploy-tools.sh $(TARGET)/deploy-tools

# promtool and prometheus: what rules, dashboard and metrics are checked with.
promtool:
	@sh tools/install-promtool.sh $(TARGET)/promtool
