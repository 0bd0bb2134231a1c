#!/usr/bin/env bash
# Runs all tests; arguments go to the runner. cargo-nextest when it is here (it does not run documentation's examples,
# so they follow), cargo test otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."

# A test that needs the local stack's faults says that it was skipped, and why: show it.
[ "${STACK:-}" != external ] || export NEXTEST_SUCCESS_OUTPUT=immediate

if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --workspace "$@"
  [ $# -gt 0 ] || cargo test --workspace --doc --quiet
else
  cargo test --workspace "$@"
fi
