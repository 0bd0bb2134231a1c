#!/usr/bin/env bash
# Everything that can be checked without running the code. What needs a tool that is not here is named and skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/.tools/bin:$PATH

have() { command -v "$1" >/dev/null 2>&1; }
skip() { printf 'lint: skipped, %s is not here: %s\n' "$1" "$2"; }

cargo fmt --all --check
cargo clippy --workspace --all-targets --quiet -- -D warnings
cargo clippy --workspace --features tendril-agent/failpoints --example failpoints --quiet -- -D warnings
# The example is named because Cargo then chooses the features of dependencies that clippy checked them with.
RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --lib --bins --example demo --quiet

scripts=(scripts/*.sh .ci/run templates/*/*.sh tendril-agent/image/*.sh)
if have shellcheck; then
  shellcheck "${scripts[@]}"
else
  skip shellcheck "${scripts[*]}"
fi

# An empty configuration file: a missing one makes terraform warn, and a developer's own must not change the result.
if have terraform; then
  TF_CLI_CONFIG_FILE=/dev/null terraform fmt -check -diff -recursive templates
elif have tofu; then
  TF_CLI_CONFIG_FILE=/dev/null tofu fmt -check -diff -recursive templates
else
  skip terraform templates
fi

if cargo deny --version >/dev/null 2>&1; then
  # Advisories need a database from the network: CI runs `cargo deny check` in full.
  cargo deny --offline --log-level error check bans licenses sources
else
  skip cargo-deny deny.toml
fi
