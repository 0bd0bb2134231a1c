#!/usr/bin/env bash
# Builds the agent's image, and tries it: scripts/image.sh [--try] [tendril-agent:local]; with --try it is there already.
#
# The trial is a whole deployment on a local stack, as the image's user, without rights, and nothing but its volume and /tmp is written.
#
# With Docker it is the Dockerfile as it stands. Without, as on a machine that reaches no image registry, buildah builds the
# Dockerfile's last stage: on a Debian made by mmdebstrap, with the agent that cargo builds here and the terraform of this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
build=true
if [ "${1:-}" = --try ]; then
  build=false
  shift
fi
readonly tag=${1:-tendril-agent:local} uid=65532

say() { printf 'image: %s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }

readonly place=$PWD/target/image

# Images and containers of buildah that are no one else's.
own_storage() {
  export CONTAINERS_STORAGE_CONF=$place/storage.conf
  mkdir -p "$place"
  printf '[storage]\ndriver = "vfs"\nrunroot = "%s/run"\ngraphroot = "%s/storage"\n' "$place" "$place" >"$CONTAINERS_STORAGE_CONF"
}

with_buildah() {
  local profile=${PROFILE:-release}
  mkdir -p "$place/agent/usr/local/bin" "$place/programs/programs"

  if ! buildah images --quiet docker.io/library/debian:bookworm-slim >/dev/null 2>&1; then
    say 'making a Debian with mmdebstrap'
    mmdebstrap --quiet --variant=minbase bookworm "$place/debian.tar"
    local base
    base=$(buildah from scratch)
    buildah add --quiet "$base" "$place/debian.tar" / >/dev/null
    buildah commit --quiet "$base" docker.io/library/debian:bookworm-slim >/dev/null
    buildah rm "$base" >/dev/null
    rm "$place/debian.tar"
  fi

  say "building the agent ($profile)"
  cargo build --quiet --locked --package tendril-agent --bin tendril-agent --profile "${profile/debug/dev}"
  install "${CARGO_TARGET_DIR:-target}/$profile/tendril-agent" "$place/agent/usr/local/bin/"
  install "$(command -v terraform || command -v tofu)" "$place/programs/programs/"
  say "building $tag"
  buildah build --quiet --isolation chroot --network host --pull-never --file tendril-agent/Dockerfile --tag "$tag" \
    --build-context "agent=$place/agent" --build-context "programs=$place/programs" . >/dev/null
}

# How the trial runs a program of the image. With Docker the root cannot be written. buildah has no such flag: there, what was written
# is looked for afterwards.
in_docker() {
  run=(docker run --rm --network host --read-only --tmpfs /tmp --volume "$volume:/var/lib/tendril" --cap-drop ALL
    --security-opt no-new-privileges)
  image=("$tag")
}

in_buildah() {
  run=(buildah run --isolation chroot --network host)
  image=("$container" --)
}

# start PROGRAM ARGUMENT…: in the image, with the environment that `settings` holds.
start() {
  local program=$1
  shift
  if [ -n "$container" ]; then
    "${run[@]}" "${settings[@]}" "${image[@]}" "$program" "$@"
  else
    "${run[@]}" "${settings[@]}" --entrypoint "$program" "${image[@]}" "$@"
  fi
}

# Files of the container's root that are younger than the trial, beside what a pod mounts and what buildah itself makes.
written() {
  local root=$1
  find "$root" -xdev -newer "$work/began" \( -type f -o -type l \) -not -path "$root/var/lib/tendril/*" -not -path "$root/tmp/*" \
    -not -path "$root/etc/hosts" -not -path "$root/etc/resolv.conf" -not -path "$root/run/.containerenv"
}

# The agent of the image runs a deployment of a local stack to its end: try_with docker|buildah
try_with() {
  local deployment status run=() image=() settings=()
  # Not local: `end` runs when the script does.
  agent=0 volume='' container=''
  work=$(mktemp -d)
  cargo build --quiet --locked --package supabase-local
  "${CARGO_TARGET_DIR:-target}/debug/supabase-local" --port 0 --db-port 0 >"$work/stack" 2>&1 &
  stack=$!
  if [ "$1" = docker ]; then volume=tendril-image-$$; else container=$(buildah from --pull-never "$tag"); fi
  # shellcheck disable=SC2317,SC2329 # the trap calls it
  end() {
    # The agent's whole group: neither engine passes a signal on.
    [ "$agent" -eq 0 ] || kill -- "-$agent" 2>/dev/null
    kill "$stack" 2>/dev/null
    wait
    [ -z "$container" ] || buildah rm "$container" >/dev/null
    [ -z "$volume" ] || docker volume rm --force "$volume" >/dev/null
    rm -rf "$work"
  }
  trap end EXIT
  "in_$1"
  touch "$work/began"
  for program in '/usr/local/bin/tendril-agent --version' 'terraform version' 'git --version'; do
    # shellcheck disable=SC2086 # a program and its argument
    start $program | sed -n 1p
  done
  local is
  is=$(start id -u)
  [ "$is" = "$uid" ] || { say "programs run as user $is, not $uid" >&2; exit 1; }

  until grep -q 'Secret key' "$work/stack"; do
    kill -0 "$stack" || { cat "$work/stack" >&2; exit 1; }
    sleep 0.2
  done
  value() { sed -n "s/^ *$1: //p" "$work/stack"; }
  local cluster=5eed0000-0000-4000-8000-00000000000c
  settings=(--env SUPABASE_URL="$(value 'API URL')" --env SUPABASE_PUBLISHABLE_KEY="$(value 'Publishable key')"
    --env TENDRIL_AGENT_TOKEN="$(token "$(value 'JWT secret')" "$cluster")" --env TENDRIL_STARTUP_JITTER=0s
    --env TENDRIL_HEALTH_ADDR=127.0.0.1:0)
  set -m
  start /usr/local/bin/tendril-agent >"$work/agent" 2>&1 &
  agent=$!
  set +m
  deployment=$(psql "$(value 'DB URL')" -qAtc "insert into public.deployments (cluster_id, config_snapshot)
    values ('$cluster', '{\"template\": \"hello\", \"variables\": {\"name\": \"image\", \"lines\": 6}}') returning id")
  for _ in $(seq 120); do
    status=$(psql "$(value 'DB URL')" -qAtc "select status from public.deployments where id = '$deployment'")
    case $status in
      SUCCESS | FAILED | CANCELLED) break ;;
    esac
    sleep 0.5
  done
  if [ "$status" != SUCCESS ]; then
    cat "$work/agent" >&2
    say "the deployment is $status" >&2
    exit 1
  fi
  if [ "$1" = buildah ]; then
    local root left
    root=$(buildah mount "$container")
    left=$(written "$root")
    buildah umount "$container" >/dev/null
    [ -z "$left" ] || { say "written outside the volume and /tmp:" "$left" >&2; exit 1; }
  fi
  say "$tag ran a deployment to its end, as user $uid, and wrote nothing but its volume and /tmp"
}

# token SECRET CLUSTER: a machine token of the local stack.
token() {
  python3 - "$@" <<'PYTHON'
import base64, hashlib, hmac, json, sys, time, uuid
secret, cluster = sys.argv[1:]
part = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")
claims = {"role": "tendril_agent", "cluster_id": cluster, "sub": str(uuid.uuid4()), "aud": "authenticated", "exp": int(time.time()) + 600}
signed = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
print((signed + b"." + part(hmac.new(secret.encode(), signed, hashlib.sha256).digest())).decode())
PYTHON
}

if have docker && docker info >/dev/null 2>&1; then
  if $build; then docker build --file tendril-agent/Dockerfile --tag "$tag" .; fi
  try_with docker
elif have buildah && { ! $build || have mmdebstrap; }; then
  own_storage
  if $build; then with_buildah; fi
  try_with buildah
else
  printf '%s\n' 'image: neither a running Docker nor buildah and mmdebstrap are here. On Debian:' \
    '  apt-get install -y buildah mmdebstrap' >&2
  exit 1
fi
