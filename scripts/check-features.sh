#!/usr/bin/env bash
# tendril-realtime with combinations of its features, and the crates that it depends on without `rest`; the agent without its launcher of pods.
#
# Eight combinations, in which each two features occur on and off together in all four ways (an orthogonal array), so that a conflict of two
# shows. All 128 would take an hour for the same answer.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly crate=tendril-realtime

lint() { cargo clippy --package "$crate" --no-default-features --quiet "$@" -- -D warnings; }

# An agent that starts no pods needs no client of the Kubernetes API.
if cargo tree --package tendril-agent --no-default-features --edges normal --prefix none | grep -E '^(kube|kube-[a-z]+|k8s-openapi) '; then
  echo 'tendril-agent without its feature "kubernetes" depends on a client of the Kubernetes API' >&2
  exit 1
fi
cargo check --package tendril-agent --no-default-features --all-targets --quiet

# The websocket alone has no HTTP client.
if cargo tree --package "$crate" --no-default-features --edges normal --prefix none | grep -E '^(reqwest|postgrest) '; then
  echo "$crate without its feature \"rest\" depends on an HTTP client" >&2
  exit 1
fi
for row in 0 1 2 3 4 5 6 7; do
  a=$((row & 1)) b=$((row >> 1 & 1)) c=$((row >> 2))
  features=fuzzing
  on() { if [ "$2" = 1 ]; then features+=",$1"; fi; }
  on rest "$a"
  on platform "$b"
  on ring "$c"
  on webpki-roots $((a ^ b))
  on socks $((a ^ c))
  on aws-lc-rs $((b ^ c))
  on metrics $((a ^ b ^ c))
  lint --features "$features"
done

crates() { cargo tree --package "$crate" "$@" --edges normal --prefix none | sed 's/ (\*)$//' | sort -u | wc -l; }
printf 'features: %s depends on %s crates, without its feature "rest" on %s\n' "$crate" "$(crates)" "$(crates --no-default-features)"
