#!/usr/bin/env bash
# The Edge Functions: formatted, linted, type-checked, and tested with Deno on a local stack.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/tool.sh deno
PATH=$PWD/.tools/bin:$PATH
root=$PWD

for function in supabase/functions/*/; do
  (
    cd "$function"
    deno fmt --quiet --check
    deno lint --quiet
    deno check --quiet --no-remote ./*.ts
    NO_COLOR=1 "$root/scripts/with-stack.sh" \
      deno test --quiet --no-remote --no-prompt --allow-net=127.0.0.1 --allow-env --allow-read=. --allow-run
  )
done
