#!/usr/bin/env bash
# supabase-local as a crate in somebody else's tests: the example package outside of the workspace is built and tested.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}/in-your-tests
CARGO_TARGET_DIR=$target cargo test --quiet --manifest-path supabase/local/examples/in-your-tests/Cargo.toml
