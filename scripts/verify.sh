#!/usr/bin/env bash
# Everything that a release needs, one step after the other, and one table at the end. Takes about an hour on two cores.
#
#   scripts/verify.sh            all steps
#   scripts/verify.sh NAME …     these steps
#
# A step that fails does not stop the others. Its output is in target/verify/NAME.log.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/.tools/bin:$PATH

logs=${CARGO_TARGET_DIR:-target}/verify
mkdir -p "$logs"

# name | command | what it has to show
steps() {
  cat <<'STEPS'
lint|make lint|format, clippy, documentation, scripts
test|TENDRIL_TEST_PROFILE=verify make test|all tests, none tried again
race|TENDRIL_RACE=full cargo nextest run --workspace --profile verify claim:: stacks:: soak:: executors::a_dispatcher_that_is_killed|100 agents and 1,000 jobs, 50 stacks, 200 jobs in a row, 50 kills in one apply of 60 s
upgrade|scripts/test-upgrade.sh|the agent of the commit before is replaced in the middle of an apply
check|make check|functions, clients, templates, chart, workflows, image, package
crash|make bench-crash ARGS='-- 5'|each fail point of agent, dispatcher and executor with 5 seeds: no line lost or doubled, the true status
bench|make bench ARGS='-- --check'|latency, memory, log and outage ratios within their bounds
peers|make bench-peers ARGS=--check|the library against its bounds and the other clients
features|make check-features|combinations of the library's features
package|make check-package ARGS=--test|the crate as crates.io gets it, built and tested
crate|make check-local-crate|the local stack in the tests of another package
STEPS
}

wanted() {
  local name=$1 arg
  shift
  [ $# -gt 0 ] || return 0
  for arg in "$@"; do
    [ "$arg" != "$name" ] || return 0
  done
  return 1
}

for arg in "$@"; do
  if ! steps | grep -q "^$arg|"; then
    printf 'verify: there is no step "%s"; the steps are: %s\n' "$arg" "$(steps | cut -d'|' -f1 | paste -sd' ')" >&2
    exit 2
  fi
done

failed=0
table=$(printf '%-8s %-6s %8s  %s' step result seconds 'what it shows')
while IFS='|' read -r name command shows <&3; do
  wanted "$name" "$@" || continue
  printf 'verify: %s: %s\n' "$name" "$command"
  began=$SECONDS result=ok
  if ! bash -c "$command" >"$logs/$name.log" 2>&1 </dev/null; then
    result=FAILED
    failed=$((failed + 1))
    tail -n 20 "$logs/$name.log" | sed "s/^/    /"
  fi
  table+=$(printf '\n%-8s %-6s %8d  %s' "$name" "$result" "$((SECONDS - began))" "$shows")
  # What a run has to say besides its result.
  grep -hE '^(flaky: |tests: |skipped \(|bounds that were missed|[0-9]+ crashes at )' "$logs/$name.log" | sed 's/^/    /' || true
done 3< <(steps)

printf '\n%s\n' "$table"
if [ "$failed" -gt 0 ]; then
  printf '%s failed: see %s\n' "$failed" "$logs" >&2
  exit 1
fi
