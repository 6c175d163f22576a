# Every command of this repository. `make` alone lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Cargo uses all cores by itself, and the steps of a target have an order.
.NOTPARALLEL:
.PHONY: help run build fmt check lint arrows stale test parts rust e2e soak bench replay docs clean

# What the end-to-end tests drive: the development build, which the Rust tests have just made.
export SLUICE_BIN ?= $(abspath $(or $(CARGO_TARGET_DIR),target))/debug/sluice

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Runs the gateway; with a config: make run ARGS="-c sluice.yaml"
	cargo run --release -p server -- serve $(ARGS)

build: ## Builds target/release/sluice
	cargo build --release -p server

fmt: ## Formats the code
	cargo fmt --all

check: lint arrows stale ## Formatting, lints, arrows between crates, freshness of docs/reference

test: parts arrows rust e2e ## All tests: arrows, Rust, then real SDKs against real model servers (ARGS go to pytest)

bench: build ## Measures Sluice beside nginx and beside nothing, some eight minutes (ARGS: crates/bench/README.md)
	cargo run --release -p bench -- run $(ARGS)

replay: ## Scheduling measured: the stage alone, a decision of prefix_aware, and ways of routing on public traces
	cargo run --release -p bench -- stage
	cargo run --release -p bench -- placement
	cargo run --release -p bench -- replay $(ARGS)

soak: build ## Ten minutes of full load, watching memory; then 400,000 histories of the scheduler, and 400 kills
	cargo run --release -p bench -- soak $(ARGS)
	SLUICE_SEEDS=100000 cargo test --release -p scheduling simulation
	SLUICE_SEEDS=1000 cargo test --release -p tenancy limit::simulation
	SLUICE_BIN=$(subst /debug/,/release/,$(SLUICE_BIN)) SLUICE_CRASHES=200 cargo test --release -p server --test crash -- --nocapture

docs: ## Writes docs/reference from the binary
	cargo xtask docs

clean: ## Removes what cargo built; the tests' parts stay in ~/.cache/sluice-tests
	cargo clean

# === the parts of check and test ===

lint:
	@cargo fmt --version >/dev/null 2>&1 || { echo 'rustfmt is missing: rustup component add rustfmt' >&2; exit 1; }
	@cargo clippy --version >/dev/null 2>&1 || { echo 'clippy is missing: rustup component add clippy' >&2; exit 1; }
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

arrows:
	cargo xtask arrows

stale:
	cargo xtask docs --check

# First, because a machine that lacks a part should say so before anything is built.
parts:
	tests/install.sh

# One build for all: the same features everywhere, so nothing is compiled twice.
rust:
	cargo build --workspace --all-targets
	@if cargo nextest --version >/dev/null 2>&1; then \
		echo 'cargo nextest run --workspace --no-fail-fast' && cargo nextest run --workspace --no-fail-fast; \
	else \
		echo 'cargo test --workspace --all-targets --no-fail-fast' && cargo test --workspace --all-targets --no-fail-fast; \
	fi

# Last, so that pytest's summary closes the output.
e2e:
	tests/run.sh $(ARGS)
