#!/usr/bin/env bash
# The templates by the schemas of their providers: `terraform validate`, which needs Terraform's registry.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/.tools/bin:$PATH
command -v terraform >/dev/null || { echo 'validate-templates: terraform is not here: make setup' >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/plugins"
# One download for all: without the second, only a lock that is there already lets Terraform take a provider from the cache.
export TF_PLUGIN_CACHE_DIR=$work/plugins TF_PLUGIN_CACHE_MAY_BREAK_DEPENDENCY_LOCK_FILE=1 TF_CLI_CONFIG_FILE=/dev/null
for file in templates/*/template.json; do
  template=$(basename "${file%/*}")
  export TF_DATA_DIR=$work/$template
  # Where there is a lock, with what it names.
  flags=()
  if [ -e "templates/$template/.terraform.lock.hcl" ]; then flags+=(-lockfile=readonly); fi
  cp -r "templates/$template" "$work/of-$template"
  terraform -chdir="$work/of-$template" init -input=false -no-color "${flags[@]}" >"$work/output" || { cat "$work/output" >&2; exit 1; }
  printf '%s: ' "$template"
  terraform -chdir="$work/of-$template" validate -no-color
done
