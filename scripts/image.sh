#!/usr/bin/env bash
# Builds the agent's image, and tries it: make image [TAG=tendril-agent:local]
#
# With Docker it is the Dockerfile as it stands. Without, as on a machine that reaches no image registry, buildah builds the
# Dockerfile's last stage: on a Debian made by mmdebstrap, with the agent that cargo builds here and the terraform of this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly tag=${1:-tendril-agent:local}

say() { printf 'image: %s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }

with_buildah() {
  local place=$PWD/target/image profile=${PROFILE:-release}
  export CONTAINERS_STORAGE_CONF=$place/storage.conf
  mkdir -p "$place/agent/usr/local/bin" "$place/programs/programs"
  printf '[storage]\ndriver = "vfs"\nrunroot = "%s/run"\ngraphroot = "%s/storage"\n' "$place" "$place" >"$CONTAINERS_STORAGE_CONF"

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

# The agent of the image, as the image's user, runs a deployment of a local stack to its end.
try_with_buildah() {
  local work stack container agent=0 deployment status
  work=$(mktemp -d)
  cargo build --quiet --package supabase-local
  "${CARGO_TARGET_DIR:-target}/debug/supabase-local" --port 0 --db-port 0 >"$work/stack" 2>&1 &
  stack=$!
  container=$(buildah from --pull-never "$tag")
  # shellcheck disable=SC2317,SC2329 # the trap calls it
  end() {
    # The agent's whole group: buildah does not pass a signal on.
    [ "$agent" -eq 0 ] || kill -- "-$agent" 2>/dev/null
    kill "$stack" 2>/dev/null
    wait
    buildah rm "$container" >/dev/null
    rm -rf "$work"
  }
  trap end EXIT
  local run=(buildah run --isolation chroot --network host)
  for program in '/usr/local/bin/tendril-agent --version' 'terraform version' 'git --version' 'id -u'; do
    # shellcheck disable=SC2086 # a program and its argument
    "${run[@]}" "$container" -- $program | sed -n 1p
  done

  until grep -q 'Secret key' "$work/stack"; do
    kill -0 "$stack" || { cat "$work/stack" >&2; exit 1; }
    sleep 0.2
  done
  value() { sed -n "s/^ *$1: //p" "$work/stack"; }
  local cluster=5eed0000-0000-4000-8000-00000000000c
  setsid "${run[@]}" --env SUPABASE_URL="$(value 'API URL')" --env SUPABASE_PUBLISHABLE_KEY="$(value 'Publishable key')" \
    --env TENDRIL_AGENT_TOKEN="$(token "$(value 'JWT secret')" "$cluster")" --env TENDRIL_START_SPREAD=0s \
    --env TENDRIL_HEALTH_ADDR=127.0.0.1:0 "$container" -- /usr/local/bin/tendril-agent >"$work/agent" 2>&1 &
  agent=$!
  deployment=$(psql "$(value 'DB URL')" -qAtc "insert into public.deployments (cluster_id, config_snapshot)
    values ('$cluster', '{\"template\": \"hello\", \"variables\": {\"name\": \"image\", \"lines\": 6}}') returning id")
  for _ in $(seq 120); do
    status=$(psql "$(value 'DB URL')" -qAtc "select status from public.deployments where id = '$deployment'")
    case $status in
      SUCCESS)
        say "$tag ran a deployment to its end"
        exit
        ;;
      FAILED | CANCELLED) break ;;
    esac
    sleep 0.5
  done
  cat "$work/agent" >&2
  say "the deployment is $status" >&2
  exit 1
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
  docker build --file tendril-agent/Dockerfile --tag "$tag" .
  docker run --rm --read-only --user 65532:65532 --cap-drop ALL --security-opt no-new-privileges "$tag" --version
elif have buildah && have mmdebstrap; then
  with_buildah
  try_with_buildah
else
  printf '%s\n' 'image: neither a running Docker nor buildah and mmdebstrap are here. On Debian:' \
    '  apt-get install -y buildah mmdebstrap' >&2
  exit 1
fi
