#!/usr/bin/env bash
# The local stack, judged by the client that most portals use: the real supabase-js, from npm.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v npm >/dev/null || { echo 'check-clients: needs Node.js 20 or newer, with npm' >&2; exit 1; }

place=$PWD/.tools/clients
mkdir -p "$place"
cp supabase/local/tests/clients/* "$place"
(cd "$place" && npm ci --silent --no-audit --no-fund)
scripts/with-stack.sh node --test --test-timeout=60000 "$place"/supabase-js.test.mjs
