#!/usr/bin/env bash
# Runs all tests; arguments go to the runner. cargo-nextest when it is here (it does not run documentation's examples,
# so they follow), cargo test otherwise.
#
#   TENDRIL_TEST_THREADS    how many tests run at a time; most wait for other programs, so 5 for each core unless set
#   TENDRIL_TEST_PROFILE    profile of .config/nextest.toml; `external` where STACK is external, else `default`
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${TENDRIL_TEST_PROFILE:-default}
[ "${STACK:-}" != external ] || profile=external

if cargo nextest --version >/dev/null 2>&1; then
  report=${CARGO_TARGET_DIR:-target}/nextest/$profile/junit.xml
  rm -f "$report"
  code=0
  threads=${TENDRIL_TEST_THREADS:-$((5 * $(getconf _NPROCESSORS_ONLN)))}
  # With its fail points, which some tests need, the agent is another program. It is built first, with the features of
  # dependencies that the tests have, so that no test waits for it.
  [ $# -gt 0 ] || cargo build --quiet --workspace --features tendril-agent/failpoints --example failpoints
  # The portal is built meanwhile: many tests wait for other programs, and leave the cores idle.
  if [ $# -eq 0 ] && [ "$profile" != external ]; then
    mkdir -p "${report%/*}"
    nice scripts/build-portal.sh >"${report%/*}/portal.log" 2>&1 &
    portal=$!
  fi
  cargo nextest run --workspace --profile "$profile" --test-threads "$threads" "$@" || code=$?
  # Which tests were flaky, and how often; which were skipped, and why.
  if [ -f "$report" ] && command -v python3 >/dev/null; then
    scripts/test-report.py "$report"
  fi
  if [ -n "${portal:-}" ] && ! wait "$portal"; then
    cat "${report%/*}/portal.log" >&2
    exit 1
  fi
  [ "$code" -eq 0 ] || exit "$code"
  [ $# -gt 0 ] || cargo test --workspace --doc --quiet
else
  cargo test --workspace "$@"
fi

# The portal in a real browser; its stories need the local stack.
[ $# -gt 0 ] || [ "$profile" = external ] || scripts/test-portal.sh
