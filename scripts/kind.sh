#!/usr/bin/env bash
# Runs as pods on a real cluster: scripts/kind.sh IMAGE. Makes a cluster with kind (https://kind.sigs.k8s.io), loads the image into it, and removes
# it at the end. KEEP=1 leaves it there.
#
#   1. The chart, installed with launcher kubernetes into namespaces that enforce the Pod Security standard "restricted": the API server takes
#      it, and its Role is all that `doctor` asks for.
#   2. tests/tests/kubernetes/real_cluster.rs: deployments of a local stack, run by pods. Pods use their node's network, so the tests run in it too.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly image=${1:?usage: scripts/kind.sh IMAGE} cluster=tendril-test node=tendril-test-control-plane

stop() { printf 'kind: %s\n' "$@" >&2; exit 1; }
say() { printf 'kind: %s\n' "$*"; }
for program in docker kind kubectl helm nsenter; do
  command -v "$program" >/dev/null || stop "$program is not here."
done
work=$(mktemp -d)
export KUBECONFIG=$work/kubeconfig

end() {
  local code=$?
  if [ "$code" -ne 0 ]; then
    kubectl get events --all-namespaces --sort-by=.lastTimestamp | tail -n 40 || true
    kubectl --namespace tendril logs deployment/tendril-agent --tail=50 || true
  fi
  [ -n "${KEEP:-}" ] || kind delete cluster --name "$cluster"
  rm -rf "$work"
}
trap end EXIT

kind create cluster --name "$cluster" --wait 3m
kind load docker-image "$image" --name "$cluster"
# The node's own name of it: a short one gets a registry and a path.
loaded=$(docker exec "$node" crictl images --output json | python3 -c '
import json, sys
tags = [tag for image in json.load(sys.stdin)["images"] for tag in image["repoTags"] or []]
print(next(tag for tag in tags if tag == sys.argv[1] or tag.endswith("/" + sys.argv[1])))' "$image")

say 'the chart'
for namespace in tendril runs; do
  kubectl create namespace "$namespace"
  kubectl label namespace "$namespace" pod-security.kubernetes.io/enforce=restricted
done
# Nobody answers there: the agent says so, is not ready, and tries again.
kubectl --namespace tendril create secret generic tendril-agent --from-literal=SUPABASE_URL=http://127.0.0.1:9 \
  --from-literal=SUPABASE_PUBLISHABLE_KEY=sb_publishable_none --from-literal="TENDRIL_AGENT_TOKEN=tdl_$(printf '0%.0s' {1..65})"
cat >"$work/values.yaml" <<VALUES
existingSecret: tendril-agent
launcher: kubernetes
replicas: 2
image: {repository: ${loaded%:*}, tag: ${loaded##*:}, pullPolicy: Never}
timing: {startupJitter: 0s}
state: {backend: http, config: {address: "http://127.0.0.1:9/{key}"}}
runs:
  namespace: runs
  serviceAccountMap: [{stacks: [prod], serviceAccount: runs-prod}, {stacks: ["*"], serviceAccount: runs}]
VALUES
helm install tendril-agent tendril-agent/chart --namespace tendril --values "$work/values.yaml"
# One that stands by is ready; the one that leads is not, as its control plane is away.
kubectl --namespace tendril wait --for=jsonpath='{.status.readyReplicas}'=1 --timeout=3m deployment/tendril-agent
kubectl --namespace runs get lease tendril.tendril-agent
kubectl --namespace tendril exec deployment/tendril-agent -- env TENDRIL_HEALTH_ADDR= tendril-agent doctor | tee "$work/doctor" || true
for check in 'kubernetes: Kubernetes v' 'kubernetes rights' "run's pod: image $loaded, service accounts runs, runs-prod"; do
  grep -q "^ok    $check" "$work/doctor" || stop "doctor does not say: ok    $check"
done
# What the chart's accounts may do, as the API server sees it.
may() {
  local expected=$1 account=$2
  shift 2
  local answer
  answer=$(kubectl auth can-i "$@" --as "system:serviceaccount:$account" || true)
  [ "$answer" = "$expected" ] || stop "$account, $*: $answer, not $expected"
}
agent=tendril:tendril-agent
may yes "$agent" create jobs.batch --namespace runs
may no "$agent" create jobs.batch --namespace tendril
may no "$agent" get secrets --namespace runs
may no "$agent" create pods --namespace runs
may yes "$agent" update leases.coordination.k8s.io/tendril.tendril-agent --namespace runs
may no "$agent" update leases.coordination.k8s.io/other --namespace runs
may yes "$agent" create serviceaccounts/tendril-agent-plans --subresource token --namespace runs
may no "$agent" create serviceaccounts/runs-prod --subresource token --namespace runs
may yes runs:tendril-agent-plans create secrets --namespace runs
for account in runs:runs runs:runs-prod runs:tendril-agent-plans; do
  may no "$account" get secrets --namespace runs
  may no "$account" create jobs.batch --namespace runs
done
may no runs:runs create secrets --namespace runs
helm uninstall tendril-agent --namespace tendril --wait

say 'the tests'
# In the node's network there is no way to a registry.
cargo test --workspace --test kubernetes --no-run
cp "$KUBECONFIG" "$work/inside"
kubectl config --kubeconfig "$work/inside" set-cluster "kind-$cluster" --server=https://127.0.0.1:6443
sudo nsenter --net --target "$(docker inspect --format '{{.State.Pid}}' "$node")" -- \
  setpriv --reuid "$(id -u)" --regid "$(id -g)" --init-groups env "HOME=$HOME" "PATH=$PWD/.tools/bin:$PATH" CARGO_NET_OFFLINE=true \
  "TENDRIL_TEST_KUBECONFIG=$work/inside" "TENDRIL_TEST_IMAGE=$loaded" \
  cargo test --workspace --test kubernetes real_cluster -- --nocapture --test-threads 1 2>&1 | tee "$work/tests"
if grep -n 'skipped: ' "$work/tests"; then stop 'tests were skipped'; fi
grep -q 'test result: ok. [1-9]' "$work/tests" || stop 'no test ran'
