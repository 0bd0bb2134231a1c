#!/usr/bin/env bash
# Builds examples/portal into examples/portal/out. Quick when nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/.tools/bin:$PATH NEXT_TELEMETRY_DISABLED=1
scripts/tool.sh node
cd examples/portal

digest() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d ' ' -f 1; }
packages=$(digest <package-lock.json)
if [ "$(cat node_modules/.built-from 2>/dev/null)" != "$packages" ]; then
  echo 'portal: installing packages'
  npm ci --silent --ignore-scripts
  echo "$packages" >node_modules/.built-from
fi

# Everything that a page is made of.
sources=$(find app components contract form live log plan server styles public/theme.js package-lock.json package.json next.config.ts tsconfig.json ../../templates/*/template.json \
  -type f | LC_ALL=C sort | while read -r file; do echo "$file"; cat "$file"; done | digest)
if [ "$(cat out/.built-from 2>/dev/null)" != "$sources" ]; then
  echo 'portal: building'
  log=$(mktemp)
  npm run --silent build >"$log" 2>&1 || { cat "$log" >&2; rm -f "$log"; exit 1; }
  rm -f "$log"
  echo "$sources" >out/.built-from
fi
