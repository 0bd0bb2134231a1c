#!/usr/bin/env bash
# Installs what the demo and the tests need and this machine does not have. Quick when nothing is missing; safe to repeat.
#
#   scripts/setup.sh          everything
#   scripts/setup.sh demo     without pgTAP, pg_cron, tinyproxy, Deno, Node.js and Chromium, which only the tests need
set -euo pipefail
cd "$(dirname "$0")/.."

readonly oldest_postgres=14
readonly terraform_version=1.11.4
readonly tools=$PWD/.tools/bin
PATH=$tools:$PATH

say() { printf 'setup: %s\n' "$*"; }
stop() { printf 'setup: %s\n' "$@" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# The directory of the PostgreSQL server's programs, looked for where the local stack looks.
postgres_dir() {
  local dir
  if [ -n "${TENDRIL_PG_BINDIR:-}" ]; then
    echo "$TENDRIL_PG_BINDIR"
    return
  fi
  while read -r dir; do
    if [ -x "$dir/initdb" ] && [ "$(postgres_major "$dir")" -ge "$oldest_postgres" ]; then
      echo "$dir"
      return
    fi
  done < <(
    pg_config --bindir 2>/dev/null || true
    tr ':' '\n' <<<"$PATH"
    find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin 2>/dev/null | sort -rV
  )
}

postgres_major() {
  local version
  version=$("$1/postgres" --version 2>/dev/null) || version=
  [[ $version =~ \)\ ([0-9]+) ]] && echo "${BASH_REMATCH[1]}" || echo 0
}

have_pgtap() {
  local dir=$1 share
  share=/usr/share/postgresql/$(postgres_major "$dir")
  if [ -x "$dir/pg_config" ]; then
    share=$("$dir/pg_config" --sharedir)
  fi
  [ -e "$share/extension/pgtap.control" ]
}

have_pg_cron() {
  local dir=$1 library=$1/../lib
  if [ -x "$dir/pg_config" ]; then
    library=$("$dir/pg_config" --pkglibdir)
  fi
  [ -e "$library/pg_cron.so" ] || [ -e "$dir/../lib/pg_cron.so" ]
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  else
    sudo -n "$@"
  fi
}

# install WHAT APT DNF APK BREW: installs packages where it may, otherwise prints the line that does and stops.
install() {
  local what=$1 apt=$2 dnf=$3 apk=$4 brew=$5 line
  if have apt-get; then line="apt-get install -y $apt"
  elif have dnf; then line="dnf install -y $dnf"
  elif have apk; then line="apk add $apk"
  elif have brew; then line="brew install $brew"
  else stop "$what is missing, and no supported package manager was found. Install $what and run this again."
  fi

  if ! have apt-get; then
    [ "$line" = "brew install $brew" ] || line="sudo $line"
    stop "$what is missing. Install it with:" "  $line"
  fi
  if [ "$(id -u)" -ne 0 ] && ! sudo -n true 2>/dev/null; then
    stop "$what is missing, and I am neither root nor allowed to use sudo without a password. Install it with:" "  sudo $line"
  fi
  say "installing $what: $line"
  local log
  log=$(mktemp)
  # shellcheck disable=SC2086 # several packages
  if ! { as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $apt; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    stop "that failed (see above). Install $what and run this again."
  fi
  rm -f "$log"
}

# Debian's package makes and starts a database cluster of its own. Nobody here needs it: the local stack has private ones.
without_default_cluster() {
  local rule=/etc/postgresql-common/createcluster.d/tendril-setup.conf
  if have apt-get && ! [ -e /etc/postgresql-common/createcluster.conf ] && as_root true 2>/dev/null; then
    as_root mkdir -p "${rule%/*}"
    # shellcheck disable=SC2064 # expanded now: the name is local
    trap "as_root rm -f $rule" EXIT
    echo 'create_main_cluster = false' | as_root tee "$rule" >/dev/null
  fi
  "$@"
}

# Terraform's checksums as HashiCorp publishes them for this release.
terraform_checksum() {
  case $1 in
    linux_amd64) echo 1ce994251c00281d6845f0f268637ba50c0005657eb3cf096b92f753b42ef4dc ;;
    linux_arm64) echo a43d1d0da9b9bab214a8305a39db0e40869572594ccf50c416a7756499143633 ;;
    darwin_amd64) echo a56d5002b9f7647291faccc3dd1a70350e60fb61e4c45037629508b8fdc2575b ;;
    darwin_arm64) echo 867e0808fa971217043e25b7a792b10720c79b1546f8a68479b74f138be73e18 ;;
  esac
}

sha256() {
  if have sha256sum; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

fetch_terraform() {
  local platform checksum url found by_hand
  by_hand='Put terraform (1.4 or newer) or tofu (1.6 or newer) on the PATH, or into .tools/bin, and run this again.'
  platform=$(uname -s | tr '[:upper:]' '[:lower:]')_$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
  checksum=$(terraform_checksum "$platform")
  [ -n "$checksum" ] || stop "no terraform or tofu here, and I have no checksum of one for $platform. $by_hand"
  have curl || install curl curl curl curl curl
  have unzip || install unzip unzip unzip unzip unzip

  url=${TENDRIL_TERRAFORM_MIRROR:-https://releases.hashicorp.com/terraform}/$terraform_version/terraform_${terraform_version}_$platform.zip
  say "fetching terraform $terraform_version into .tools/bin"
  mkdir -p "$tools"
  local zip=$tools/terraform.zip
  if ! curl --fail --silent --show-error --location --proto '=https' --retry 2 --connect-timeout 10 --output "$zip" "$url"; then
    rm -f "$zip"
    stop "no terraform or tofu here, and $url cannot be fetched from this machine." "$by_hand"
  fi
  found=$(sha256 "$zip")
  if [ "$found" != "$checksum" ]; then
    rm -f "$zip"
    stop "what $url gave is not Terraform $terraform_version: its SHA-256 is $found, expected $checksum. Deleted." "$by_hand"
  fi
  unzip -q -o "$zip" terraform -d "$tools"
  rm -f "$zip"
}

have cargo || stop 'cargo is missing. Install Rust from https://rustup.rs and run this again.'
have git || install git git git git git
have cc || have gcc || have clang || install 'a C compiler' 'gcc libc6-dev' gcc 'gcc musl-dev' gcc

dir=$(postgres_dir)
if [ -z "$dir" ] || ! [ -x "$dir/initdb" ]; then
  [ -z "${TENDRIL_PG_BINDIR:-}" ] || stop "TENDRIL_PG_BINDIR is $TENDRIL_PG_BINDIR, where no PostgreSQL server is."
  without_default_cluster install 'a PostgreSQL server' postgresql postgresql-server 'postgresql17 postgresql17-contrib' postgresql@17
  dir=$(postgres_dir)
  [ -n "$dir" ] || stop "still no PostgreSQL $oldest_postgres or newer. Set TENDRIL_PG_BINDIR to the directory that has its \`initdb\`."
fi
if [ "${1:-}" != demo ] && ! have_pgtap "$dir"; then
  install "pgTAP for PostgreSQL $(postgres_major "$dir")" "postgresql-$(postgres_major "$dir")-pgtap" pgtap 'postgresql-pgtap' pgtap
  have_pgtap "$dir" || stop "pgTAP is installed, but not for the PostgreSQL in $dir."
fi
if [ "${1:-}" != demo ] && ! have_pg_cron "$dir"; then
  install "pg_cron for PostgreSQL $(postgres_major "$dir")" "postgresql-$(postgres_major "$dir")-cron" pg_cron postgresql-pg_cron pg_cron
fi
if [ "${1:-}" != demo ]; then
  have tinyproxy || install 'tinyproxy, through which the tests connect' tinyproxy tinyproxy tinyproxy tinyproxy
  # Debian's Python comes without the module that makes virtual environments.
  if ! [ -x "${TENDRIL_DENO:-}" ] && ! have deno; then
    if have apt-get; then python3 -c 'import ensurepip' 2>/dev/null || install 'Python with venv, for Deno' python3-venv '' '' ''; fi
    scripts/tool.sh deno
  fi
  # With an S3 server for the tests of the state backend.
  if ! have moto_server; then
    if have apt-get; then python3 -c 'import ensurepip' 2>/dev/null || install 'Python with venv, for the S3 server' python3-venv '' '' ''; fi
    scripts/tool.sh moto
  fi
fi

if [ "${1:-}" != demo ]; then
  scripts/tool.sh node
  [ -n "${CHROMIUM:-}" ] || have chromium || have chromium-browser || have google-chrome ||
    install 'Chromium, in which the portal is tested' chromium chromium chromium chromium
fi

have terraform || have tofu || fetch_terraform
