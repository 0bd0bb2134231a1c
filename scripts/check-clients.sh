#!/usr/bin/env bash
# The local stack, tested with the clients that people use: the newest supabase-js on Node.js 24, and supabase-py.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/tool.sh node supabase
PATH=$PWD/.tools/bin:$PATH

place=$PWD/.tools/clients
mkdir -p "$place"
cp supabase/local/tests/clients/* "$place"
(cd "$place" && npm ci --silent --no-audit --no-fund)
export STACK_SEED=supabase/local/tests/clients/policies.sql
scripts/with-stack.sh node --test --test-timeout=60000 "$place"/supabase-js.test.mjs
scripts/with-stack.sh supabase-python "$place"/supabase_py_test.py
