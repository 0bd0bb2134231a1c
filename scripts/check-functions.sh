#!/usr/bin/env bash
# The Edge Functions: formatted, linted, type-checked, and tested with Deno on a local stack.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/tool.sh deno
PATH=$PWD/.tools/bin:$PATH

for function in supabase/functions/*/; do
  (cd "$function" && deno fmt --quiet --check && deno lint --quiet && deno check --quiet --no-remote ./*.ts)
done

cargo build --quiet --package supabase-local
log=$(mktemp)
"${CARGO_TARGET_DIR:-target}/debug/supabase-local" --port 0 --db-port 0 >"$log" 2>&1 &
stack=$!
trap 'kill "$stack" 2>/dev/null; wait "$stack" 2>/dev/null; rm -f "$log"' EXIT

# The last line of what it prints once it is ready.
for _ in $(seq 600); do
  grep -q 'Secret key' "$log" && break
  kill -0 "$stack" 2>/dev/null || { cat "$log" >&2; exit 1; }
  sleep 0.1
done
value() { sed -n "s/^ *$1: //p" "$log"; }

for function in supabase/functions/*/; do
  (
    cd "$function"
    SUPABASE_URL=$(value 'API URL') SUPABASE_ANON_KEY=$(value 'anon key') \
      SUPABASE_SERVICE_ROLE_KEY=$(value 'service_role key') JWT_SECRET=$(value 'JWT secret') NO_COLOR=1 \
      deno test --quiet --no-remote --no-prompt --allow-net=127.0.0.1 --allow-env --allow-read=. --allow-run
  )
done
