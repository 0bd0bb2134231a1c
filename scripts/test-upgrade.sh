#!/usr/bin/env bash
# Replaces an older agent in the middle of an apply: its executor has to end the run well, and the new dispatcher has to take it over.
#
#   scripts/test-upgrade.sh          the agent of the commit before
#   scripts/test-upgrade.sh REF      of this tag or commit
#   TENDRIL_PREVIOUS_AGENT=FILE scripts/test-upgrade.sh
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${TENDRIL_PREVIOUS_AGENT:-}" ]; then
  ref=$(git rev-parse --verify "${1:-HEAD~1}^{commit}")
  target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
  source=$target/previous
  git worktree remove --force "$source" 2>/dev/null || true
  git worktree prune
  git worktree add --detach --quiet "$source" "$ref"
  trap 'git worktree remove --force "$source"' EXIT
  # Its own directory: the other version's build must not replace what is built here.
  CARGO_TARGET_DIR=$target/previous-target cargo build --quiet --manifest-path "$source/Cargo.toml" -p tendril-agent --bins
  export TENDRIL_PREVIOUS_AGENT=$target/previous-target/debug/tendril-agent
  printf 'upgrade: from %s (%s)\n' "$("$TENDRIL_PREVIOUS_AGENT" --version | head -n 1)" "$(git log -1 --format=%h "$ref")"
fi
cargo nextest run --workspace --profile verify -E 'binary(durability) and test(an_upgrade_in_mid_apply)'
