#!/usr/bin/env bash
# tendril-realtime with every combination of its features, and the crates that it depends on without `rest`.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly crate=tendril-realtime

lint() { cargo clippy --package "$crate" --no-default-features --quiet "$@" -- -D warnings; }

# The websocket alone has no HTTP client.
if cargo tree --package "$crate" --no-default-features --edges normal --prefix none | grep -E '^(reqwest|postgrest) '; then
  echo "$crate without its feature \"rest\" depends on an HTTP client" >&2
  exit 1
fi
lint
# `fuzzing` and `metrics` change nothing that the other features change.
for features in socks metrics rest,socks rest,metrics socks,metrics,fuzzing rest,socks,metrics,fuzzing; do
  lint --features "$features"
done

crates() { cargo tree --package "$crate" "$@" --edges normal --prefix none | sed 's/ (\*)$//' | sort -u | wc -l; }
printf 'features: %s depends on %s crates, without its feature "rest" on %s\n' "$crate" "$(crates)" "$(crates --no-default-features)"
