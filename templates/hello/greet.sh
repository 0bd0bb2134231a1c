#!/bin/sh
# Prints LINES lines in six bursts, half a second apart, and one line on stderr half way.
set -eu

printf '%s, %s!\n' "$GREETING" "$NAME"
burst=0
line=1
while [ "$burst" -lt 6 ]; do
  burst=$((burst + 1))
  while [ "$line" -le $((LINES * burst / 6)) ]; do
    printf 'line %d of %d\n' "$line" "$LINES"
    line=$((line + 1))
  done
  if [ "$burst" -eq 3 ]; then
    echo 'half way (this line is on stderr)' >&2
  fi
  sleep 0.5
done
echo 'Done.'
