# Two commands to know: `make demo` and `make test`.

SHELL := bash
export PATH := $(CURDIR)/.tools/bin:$(PATH)
ARGS ?=

.PHONY: check-local-crate check-features help setup demo portal test bench bench-crash bench-peers verify lint image check check-functions check-clients check-templates check-chart check-workflows check-image check-package

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

setup: ## Install what is missing: PostgreSQL, pgTAP, git, Terraform, Deno, Node.js, Chromium
	@scripts/setup.sh

demo: ## A real deployment, from the queue to the live log; ARGS=--keep leaves the stack running
	@scripts/setup.sh demo
	cargo build -p tendril-agent -p tendril-examples --bin tendril-agent --example demo --example deploy --example listen
	@$(if $(findstring --portal,$(ARGS)),scripts/build-portal.sh)
	@$${CARGO_TARGET_DIR:-target}/debug/examples/demo $(ARGS)

portal: ## The web application, on a local stack with a demo agent
	@$(MAKE) --no-print-directory demo ARGS='--portal $(ARGS)'

test: setup ## All tests
	scripts/test.sh $(ARGS)

bench: setup ## Latency, throughput, memory; ARGS='-- --check' fails where a bound is missed
	cargo build --release -p tendril-agent --bins
	cargo bench -p tendril-tests --bench deployment --bench log --bench fleet --bench pods --bench waiting $(ARGS)
	cargo bench -p supabase-local --bench stack

bench-crash: setup ## Agent, dispatcher and executor killed at each fail point with five seeds: the crash table
	cargo build -p tendril-agent --features failpoints --example failpoints
	cargo bench -p tendril-tests --bench crash $(ARGS)

bench-peers: ## tendril-realtime beside other clients of Supabase Realtime; needs node, npm, python3, two cores
	tendril-realtime/benches/side-by-side/run.py $(ARGS)

verify: setup ## Everything a release needs, in about an hour, with one table at the end; ARGS=crash for one step
	scripts/verify.sh $(ARGS)

lint: setup ## Format, clippy, documentation, scripts, templates
	scripts/lint.sh

check: check-clients check-templates check-functions check-chart check-workflows check-image check-package ## What is not Rust, the stack with supabase-js, the contents of the crate; the tools come into .tools

check-functions: ## Edge Functions, with Deno on a local stack
	scripts/check-functions.sh

check-clients: ## The local stack, with the real supabase-js and supabase-py
	scripts/check-clients.sh

check-local-crate: ## The local stack as a crate in the tests of another package
	scripts/check-local-crate.sh

check-templates: ## template.json against variables, their rules tried, names and rights against AWS's, checkov
	scripts/check-templates.sh

check-chart: ## The chart, rendered and checked; ARGS=--write writes its table of values
	scripts/check-chart.sh $(ARGS)

check-workflows: ## GitHub Actions, with actionlint
	scripts/check-workflows.sh

check-image: ## The Dockerfile, with hadolint
	scripts/tool.sh hadolint
	hadolint tendril-agent/Dockerfile

check-features: ## Combinations of the library's features, with clippy
	scripts/check-features.sh

check-package: ## The library as crates.io gets it: files and size; ARGS=--test builds it and runs its tests
	scripts/check-package.sh $(ARGS)

image: ## The agent's image, built and tried with Docker or buildah; ARGS=name:tag
	scripts/image.sh $(ARGS)
