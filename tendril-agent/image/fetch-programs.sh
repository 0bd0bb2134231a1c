#!/bin/bash
# Fetches the programs that the image contains beside the agent, into a directory. A wrong checksum ends the build.
# Versions and checksums are the Dockerfile's arguments.
set -euo pipefail
to=$1
arch=${TARGETARCH:-$(dpkg --print-architecture)}
mkdir -p "$to"

# The argument for this processor: checksum NAME
checksum() {
  local variable=$1_SHA256_${arch^^} value
  value=${!variable:-}
  [ -n "$value" ] || { echo "no checksum $variable: there is no $1 for $arch here, or it was not given" >&2; exit 1; }
  echo "$value"
}

# fetch NAME URL: into /tmp/NAME, verified.
fetch() {
  local sum
  sum=$(checksum "$1")
  curl --fail --silent --show-error --location --proto '=https' --retry 3 --output "/tmp/$1" "$2"
  echo "$sum  /tmp/$1" | sha256sum --check --strict
}

fetch TERRAFORM "https://releases.hashicorp.com/terraform/$TERRAFORM_VERSION/terraform_${TERRAFORM_VERSION}_linux_$arch.zip"
unzip -q /tmp/TERRAFORM terraform -d "$to"

if [ -n "${INFRACOST_VERSION:-}" ]; then
  fetch INFRACOST "https://github.com/infracost/infracost/releases/download/v$INFRACOST_VERSION/infracost-linux-$arch.tar.gz"
  tar -xzOf /tmp/INFRACOST "infracost-linux-$arch" >"$to/infracost"
fi
chmod 755 "$to"/*
