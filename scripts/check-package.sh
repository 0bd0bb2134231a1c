#!/usr/bin/env bash
# The library as crates.io gets it: the files of the package and its size. --test: that it builds alone, and its tests, as a user
# who downloads it runs them.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly crate=tendril-realtime
# crates.io takes 10 MiB.
readonly limit=$((10 * 1024 * 1024))

stop() { printf 'package: %s\n' "$@" >&2; exit 1; }

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# The dependencies were fetched by any earlier build of the workspace; what is not committed yet is packaged too. `--test` builds it.
cargo package --package "$crate" --locked --offline --allow-dirty --no-verify --quiet

target=$(cargo metadata --format-version 1 --no-deps --offline | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
file=$target/package/$crate-$version.crate
size=$(wc -c <"$file")
[ "$size" -lt "$limit" ] || stop "$file is $size bytes, and crates.io takes $limit: see \`include\` in $crate/Cargo.toml"
names=$(tar -tzf "$file")
for wanted in README.md LICENSE-MIT LICENSE-APACHE src/lib.rs src/guarantees.md tests/recorded/2.0.0/broadcast_text.jsonl; do
  grep -qx "$crate-$version/$wanted" <<<"$names" || stop "$wanted is not in the package: see \`include\` in $crate/Cargo.toml"
done
strays=$(grep -vE "^$crate-$version/(src/|tests/recorded/|README\.md|LICENSE-(MIT|APACHE)|Cargo\.(toml|toml\.orig|lock)|\.cargo_vcs_info\.json)" <<<"$names") || true
[ -z "$strays" ] || stop "these files are of no use to whoever downloads it: $strays"

if [ "${1:-}" = --test ]; then
  place=$(mktemp -d)
  trap 'rm -rf "$place"' EXIT
  tar -xzf "$file" -C "$place"
  cargo test --manifest-path "$place/$crate-$version/Cargo.toml" --target-dir "$target/package/tests" --offline --quiet
fi
printf 'package: %s %s, %s files, %s KiB\n' "$crate" "$version" "$(wc -l <<<"$names")" "$((size / 1024))"
