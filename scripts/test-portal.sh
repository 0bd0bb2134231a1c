#!/usr/bin/env bash
# Tests the portal: its modules, then all of it in Chromium on a local stack. PORTAL_SCREENSHOTS=1 renews its screenshots.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/.tools/bin:$PATH
cargo build --quiet --workspace --bins --examples
scripts/build-portal.sh
cd examples/portal
npm run --silent check
npm test --silent
npm run --silent test:browser
