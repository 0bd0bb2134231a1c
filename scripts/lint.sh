#!/usr/bin/env bash
# Everything that can be said about the code without running it. What needs a tool that is not here is named and skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/.tools/bin:$PATH

have() { command -v "$1" >/dev/null 2>&1; }
skip() { printf 'lint: skipped, %s is not here: %s\n' "$1" "$2"; }

cargo fmt --all --check
cargo clippy --workspace --all-targets --quiet -- -D warnings
cargo clippy --package tendril-agent --features failpoints --examples --quiet -- -D warnings
# The websocket alone: no HTTP client comes with it.
cargo clippy --package tendril-realtime --no-default-features --quiet -- -D warnings
if cargo tree --package tendril-realtime --no-default-features --edges normal --prefix none | grep -E '^(reqwest|postgrest) '; then
  echo "tendril-realtime without its feature \"rest\" pulls in an HTTP client" >&2
  exit 1
fi
# Every combination of the library's features; `fuzzing` and `metrics` touch nothing that the others do.
for features in socks metrics rest,socks rest,metrics socks,metrics,fuzzing rest,socks,metrics,fuzzing; do
  cargo clippy --package tendril-realtime --no-default-features --features "$features" --quiet -- -D warnings
done
crates() { cargo tree --package tendril-realtime "$@" --edges normal --prefix none | sed 's/ (\*)$//' | sort -u | wc -l; }
printf 'lint: tendril-realtime stands on %s crates, without its feature "rest" on %s\n' "$(crates)" "$(crates --no-default-features)"
RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --quiet

scripts=(scripts/*.sh .ci/run templates/*/*.sh tendril-agent/image/*.sh)
if have shellcheck; then
  shellcheck "${scripts[@]}"
else
  skip shellcheck "${scripts[*]}"
fi

# An empty configuration file: a missing one makes terraform warn, and a developer's own must not change the verdict.
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
