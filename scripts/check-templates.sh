#!/usr/bin/env bash
# The templates: format, agreement of variables and template.json, their rules and what they compute tried with terraform, names against the
# AWS provider's, rights against AWS's actions, and checkov's security rules.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/tool.sh hcl checkov aws-schema
PATH=$PWD/.tools/bin:$PATH

terraform=$(command -v terraform || command -v tofu || true)
if [ -n "$terraform" ]; then
  TF_CLI_CONFIG_FILE=/dev/null "$terraform" fmt -check -diff -recursive templates
else
  echo 'check-templates: neither terraform nor tofu is here; format and rules are not tried' >&2
fi
hcl-python scripts/check-templates.py ${terraform:+"$terraform"}
[ -z "$terraform" ] || python3 scripts/try-templates.py "$terraform"
hcl-python scripts/check-provider.py .tools/aws-schema
checkov-python scripts/check-policies.py

# Offline and without a platform account. A skip stands beside its resource, with its reason.
checkov --directory templates --framework terraform --compact --quiet --skip-download 2>/dev/null
if grep -rnE 'checkov:skip=[A-Z0-9_]+(:\s*)?$' templates; then
  echo 'check-templates: each skip needs a reason' >&2
  exit 1
fi
