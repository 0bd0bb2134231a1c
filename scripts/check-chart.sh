#!/usr/bin/env bash
# The Helm chart, rendered by the real Helm and checked by scripts/check-chart.py, and its admission policies by scripts/check-admission.py. --write: write the README's table of
# values, and what the agent's tests read of the chart.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/tool.sh helm kubernetes promtool admission
PATH=$PWD/.tools/bin:$PATH
kubernetes-python scripts/check-chart.py "$@"
admission-python scripts/check-admission.py
