#!/usr/bin/env bash
# Writes .terraform.lock.hcl into each template that has providers: their version and checksums, for the processors of the image. It needs
# Terraform's registry, or other arguments of `terraform providers lock`: scripts/lock-templates.sh -fs-mirror=/mirror
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/.tools/bin:$PATH
command -v terraform >/dev/null || { echo 'lock-templates: terraform is not here: make setup' >&2; exit 1; }

declare -A locked
for file in templates/*/providers.tf; do
  folder=${file%/*}
  # What the lock is of. The same in most templates, and each lock fetches the provider for both processors.
  wanted=$(sed -n '/required_providers/,/^  }/p' "$file")
  if [ -n "${locked[$wanted]:-}" ]; then
    cp "${locked[$wanted]}" "$folder/.terraform.lock.hcl"
  else
    TF_CLI_CONFIG_FILE=/dev/null terraform -chdir="$folder" providers lock -platform=linux_amd64 -platform=linux_arm64 "$@"
    locked[$wanted]=$folder/.terraform.lock.hcl
  fi
done
