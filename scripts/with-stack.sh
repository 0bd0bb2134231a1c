#!/usr/bin/env bash
# Runs a command beside a local stack of its own: scripts/with-stack.sh COMMAND [ARGUMENT…]. The command sees where it is, and
# its keys, in the variables that a Supabase project gives to its functions. STACK_SEED names another seed than the project's.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# As the tests build it: with other features, most dependencies would be built a second time.
target=$(cd "$root" && cargo build --quiet --workspace --bins --examples && cargo metadata --format-version 1 --no-deps --offline | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
log=$(mktemp)
"$target/debug/supabase-local" --port 0 --db-port 0 ${STACK_SEED:+--seed "$STACK_SEED"} >"$log" 2>&1 &
stack=$!
trap 'kill "$stack" 2>/dev/null; wait "$stack" 2>/dev/null; rm -f "$log"' EXIT

# The last line of what it prints once it is ready.
for _ in $(seq 600); do
  grep -q 'Secret key' "$log" && break
  kill -0 "$stack" 2>/dev/null || { cat "$log" >&2; exit 1; }
  sleep 0.1
done
value() { sed -n "s/^ *$1: //p" "$log"; }

SUPABASE_URL=$(value 'API URL') SUPABASE_ANON_KEY=$(value 'anon key') SUPABASE_SERVICE_ROLE_KEY=$(value 'service_role key') \
  JWT_SECRET=$(value 'JWT secret') "$@"
