# The front door. Anything longer than a few lines is in scripts/.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/setpoint

# Build artefacts are kept outside the checkout where such a folder exists, so that a fresh clone starts warm.
ifndef CARGO_TARGET_DIR
  ifneq ($(wildcard $(CACHE)/target/.),)
    CARGO_TARGET_DIR := $(CACHE)/target
  else
    CARGO_TARGET_DIR := $(CURDIR)/target
  endif
endif
export CARGO_TARGET_DIR

# CI has no terminal and fails on warnings.
ifdef CI
  export CARGO_TERM_COLOR := never
  export CARGO_TERM_PROGRESS_WHEN := never
endif

RELEASE := $(CARGO_TARGET_DIR)/release
DEBUG := $(CARGO_TARGET_DIR)/debug
# The test tiers and the demo take the same etcd, and find its etcdctl on PATH.
WITH_ETCD = SETPOINT_ETCD=$$(scripts/etcd.sh --quiet) && export SETPOINT_ETCD PATH="$$(dirname "$$SETPOINT_ETCD"):$$PATH"
# The model of etcd is held against these as well. It is an error when they could be had and are not; what is skipped
# because there is no way to get it is said at the beginning and at the end.
MORE_ETCDS = more=$$(scripts/more-etcds.sh) && eval "$$more"

.PHONY: help setup build bin-dir demo test build-tests e2e sim check-scheduler random mutants lint bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing to build and test (etcd, protoc, a C compiler)
	@scripts/setup.sh

build: setup ## Build the release binaries
	cargo build --release --locked -p setpoint -p hello-http
	@echo 'built. To use it here: export PATH="$$(make -s bin-dir):$$PATH"'

bin-dir: ## Print where the release binaries are
	@echo $(RELEASE)

demo: setup ## Start a 3-node cluster, deploy to it, kill a node, watch the work move
	@cargo build --release --locked -p setpoint -p hello-http
	@SETPOINT_BIN="$${SETPOINT_BIN:-$(RELEASE)/setpoint}" scripts/demo.sh

# One selection of packages and targets for everything that is tested: another selection would unify other features of
# the dependencies and build them a second time.
TESTED := --workspace --locked

# Most tests wait for a store or for processes: two of them per core leave it busy.
test: export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))
test: setup build-tests ## Run everything: unit, component and end-to-end tests, and the demo
	@$(WITH_ETCD) && $(MORE_ETCDS) && trap 'printf "%s" "$$SETPOINT_ETCD_SKIPPED" >&2' EXIT && \
	  SETPOINT_BIN=$(DEBUG)/setpoint cargo test $(TESTED) --no-fail-fast
	@SETPOINT_BIN=$(DEBUG)/setpoint scripts/demo.sh </dev/null

e2e: setup build-tests ## Run only the tests against built binaries and real etcd
	@$(WITH_ETCD) && SETPOINT_BIN=$(DEBUG)/setpoint cargo test $(TESTED) --test e2e --test faults

mutants: setup ## Take one guard after another out of the code; a named test must fail each time (MUTANTS=name ... for some)
	@$(WITH_ETCD) && scripts/mutants.sh $(MUTANTS)

sim: setup ## Run the simulation with 10,000 seeds (SIM_SEEDS=n, from SIM_FIRST=n)
	@cargo build --release --locked -p setpoint
	@$(RELEASE)/setpoint simulate --seeds $(or $(SIM_FIRST),0)..$$(($(or $(SIM_FIRST),0) + $(or $(SIM_SEEDS),10000)))

check-scheduler: setup ## Hold the scheduler's core against the checker on new random clusters (SEEDS="1 2 ..." these, CASES=n of each kind)
	@cargo test --release --locked -p setpoint-scheduler-check --no-run
	@for seed in $(or $(SEEDS),$(shell date +%s)); do \
	  echo "SETPOINT_CHECK_SEED=$$seed SETPOINT_CHECK_CASES=$(or $(CASES),5000)" >&2; \
	  SETPOINT_CHECK_SEED=$$seed SETPOINT_CHECK_CASES=$(or $(CASES),5000) \
	    cargo test --release --locked --quiet -p setpoint-scheduler-check --test it differential; \
	done

random: export PROPTEST_RNG_SEED := $(or $(SEED),$(shell date +%s))
random: setup ## Run the random tests with new cases (SEED=n these)
	@echo "SEED=$$PROPTEST_RNG_SEED" >&2
	@$(WITH_ETCD) && cargo test $(TESTED) --quiet --lib --test oracle --test reference

build-tests: setup
	@cargo build $(TESTED) --bins --tests

lint: setup ## Check formatting, clippy, documentation, house rules and dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet
	scripts/tidy.sh
	@if cargo deny --version >/dev/null 2>&1; then cargo deny --offline check bans licenses sources; else echo "cargo-deny is not installed: licences, bans and sources are not checked"; fi

bench: setup ## Measure start-up, Deployments, store, takeover and scheduling, and how its cost grows, with a release build (BENCH="store ..." some, BENCH_ARGS="--output json" flags)
	@cargo build --release --locked -p setpoint -p hello-http
	@$(WITH_ETCD) && for name in $(or $(BENCH),startup deployment store takeover schedule); do \
	  echo "setpoint bench $$name" >&2; \
	  PATH="$(RELEASE):$$PATH" $(RELEASE)/setpoint bench "$$name" $(BENCH_ARGS); \
	  [ "$$name" != schedule ] || $(RELEASE)/setpoint bench schedule --core --case growth $(if $(findstring json,$(BENCH_ARGS)),--output json); \
	done

clean: ## Remove the build artefacts of this checkout
	cargo clean --workspace
	rm -rf "$(CARGO_TARGET_DIR)/mutants"
