"""The Helm chart, rendered by the real Helm: every resource against the schemas of three Kubernetes versions, what must be so
whatever the values, what wrong values are told, and the table of values in its README.

    .tools/bin/kubernetes-python scripts/check-chart.py [--write]      --write: write the table instead of comparing it
"""

import json
import pathlib
import re
import subprocess
import sys

import kubernetes_validate
import yaml

CHART = pathlib.Path(__file__).parent.parent / "tendril-agent" / "chart"
# The oldest that Chart.yaml takes, the newest known, and one between.
VERSIONS = ("1.29", "1.33", "1.37")
# Described by their operators, not by Kubernetes.
CUSTOM = {"ServiceMonitor", "ScaledObject"}
KEY = "tdl_" + "0" * 65
FROM_SECRET = {"existingSecret": "mine"}
REMOTE = {"state": {"backend": "s3", "config": {"bucket": "b", "region": "eu-central-1"}}}
DIGEST = "sha256:" + "0" * 64

CASES = {
    "the least": FROM_SECRET,
    "a secret made by the chart": {"agentToken": KEY, "supabase": {"url": "https://a.supabase.co", "publishableKey": "k"}},
    "token from a file": FROM_SECRET | {"tokenFrom": "file"},
    "several replicas": FROM_SECRET | REMOTE | {"replicas": 3, "podDisruptionBudget": {"maxUnavailable": "50%"}},
    "no volume": FROM_SECRET | {"persistence": {"enabled": False}},
    "an own volume": FROM_SECRET | {"persistence": {"existingClaim": "mine"}},
    "IRSA": FROM_SECRET | {"aws": {"roleArn": "arn:aws:iam::123456789012:role/agent", "region": "eu-central-1"}},
    "own service account": FROM_SECRET | {"serviceAccount": {"create": False, "name": "mine"}},
    "nothing around it": FROM_SECRET | {"podDisruptionBudget": {"enabled": False}, "networkPolicy": {"enabled": False}},
    "everything": FROM_SECRET
    | REMOTE
    | {
        "nameOverride": "runner",
        "image": {"digest": DIGEST},
        "imagePullSecrets": [{"name": "registry"}],
        "terminationGracePeriodSeconds": 3600,
        "shutdown": {"grace": 3000},
        "keda": {"enabled": True, "prometheusAddress": "http://prometheus:9090", "authenticationRef": "prometheus"},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "networkPolicy": {
            "egressPorts": [443, 22],
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
        },
        "persistence": {"storageClass": "gp3", "size": "20Gi"},
        "git": {"hosts": ["github.com", "git.example.org:8443"], "token": True, "user": "oauth2"},
        "terraformEnv": ["GITHUB_TOKEN"],
        "extraEnv": [{"name": "GITHUB_TOKEN", "valueFrom": {"secretKeyRef": {"name": "github", "key": "token"}}}],
        "extraVolumes": [{"name": "authority", "configMap": {"name": "authority"}}],
        "extraVolumeMounts": [{"name": "authority", "mountPath": "/etc/authority", "readOnly": True}],
        "priorityClassName": "agents",
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"},
        "nodeSelector": {"kubernetes.io/arch": "arm64"},
        "tolerations": [{"key": "agents", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
    },
}

REFUSED = {
    "no secret and nothing for one": ({}, "agentToken|existingSecret"),
    "a value of another name": (FROM_SECRET | {"replicaCount": 2}, "replicaCount"),
    "a token that is none": ({"agentToken": "x", "supabase": {"url": "https://a", "publishableKey": "k"}}, "agentToken"),
    "an address that is none": ({"agentToken": KEY, "supabase": {"url": "a.supabase.co", "publishableKey": "k"}}, "url"),
    "too many jobs": (FROM_SECRET | {"concurrency": 65}, "concurrency"),
    "a grace that is too short for the agent's": (
        FROM_SECRET | {"shutdown": {"grace": 900}, "terminationGracePeriodSeconds": 959},
        "must be at least shutdown.grace and 60 s: 960",
    ),
    "replicas with local state": (FROM_SECRET | {"replicas": 2}, "set state.backend to s3, http or pg"),
    "replicas with one volume": (FROM_SECRET | REMOTE | {"replicas": 2, "persistence": {"existingClaim": "c"}}, "each replica needs its own"),
    "credentials of the state among the values": (
        FROM_SECRET | {"state": {"backend": "s3", "config": {"secret_key": "s"}}},
        "state/config|state.config",
    ),
    "KEDA without Prometheus": (FROM_SECRET | REMOTE | {"keda": {"enabled": True}}, "keda.prometheusAddress"),
    "KEDA with local state": (FROM_SECRET | {"keda": {"enabled": True, "prometheusAddress": "http://p"}}, "state.backend"),
    "KEDA upside down": (
        FROM_SECRET | REMOTE | {"keda": {"enabled": True, "prometheusAddress": "http://p", "minReplicas": 6}},
        "keda.maxReplicas is less",
    ),
    "a role for nobody": (
        FROM_SECRET | {"aws": {"roleArn": "arn:aws:iam::123456789012:role/a"}, "serviceAccount": {"create": False}},
        "aws.roleArn",
    ),
    "a Git host that is none": (FROM_SECRET | {"git": {"hosts": ["https://github.com"]}}, "git"),
    "a Git token for no host": (FROM_SECRET | {"git": {"token": True}}, "set git.hosts"),
    "a Git token without a Secret": (
        {"agentToken": KEY, "supabase": {"url": "https://a", "publishableKey": "k"}, "git": {"hosts": ["github.com"], "token": True}},
        "git.token needs existingSecret",
    ),
    "a secret in plain environment": (FROM_SECRET | {"extraEnv": [{"name": "TENDRIL_AGENT_TOKEN", "value": "x"}]}, "extraEnv"),
    "a digest that is none": (FROM_SECRET | {"image": {"digest": "latest"}}, "digest"),
}

problems = []


def expect(case, holds, text):
    if not holds:
        problems.append(f"{case}: {text}")


def helm(command, values):
    run = subprocess.run(
        ["helm", *command, "--values", "-"], input=json.dumps(values), capture_output=True, text=True, check=False
    )
    return run.returncode, run.stdout, run.stderr


def render(values):
    code, out, said = helm(["template", "agent", str(CHART), "--namespace", "tendril"], values)
    if code != 0:
        raise RuntimeError(said)
    return [document for document in yaml.safe_load_all(out) if document]


def validate(case, resources):
    for resource in resources:
        if resource["kind"] in CUSTOM:
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(resource, version, strict=True)
            except Exception as error:  # noqa: BLE001 one of several kinds, all of them mean the same
                problems.append(f"{case}: {resource['kind']}, Kubernetes {version}: {error}")


def always(case, values, resources):
    """What holds whatever the values."""
    by_kind = {resource["kind"]: resource for resource in resources}
    expect(case, not {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "Ingress"} & by_kind.keys(), "rights or an ingress")
    pod = by_kind["StatefulSet"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    names = [volume["name"] for volume in pod["volumes"]]
    names += [claim["metadata"]["name"] for claim in by_kind["StatefulSet"]["spec"].get("volumeClaimTemplates", [])]
    environment = [variable["name"] for variable in container["env"]]

    # Pod Security Standard "restricted".
    security = container["securityContext"]
    expect(case, pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0, "may run as root")
    expect(case, pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, "no seccomp profile")
    expect(case, security["allowPrivilegeEscalation"] is False and security["capabilities"] == {"drop": ["ALL"]}, "may gain rights")
    expect(case, not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys() and "initContainers" not in pod, "is on the host")
    expect(case, not any("hostPath" in volume for volume in pod["volumes"]), "mounts the host")
    # And beyond.
    expect(case, security["readOnlyRootFilesystem"] is True, "its root file system can be written")
    expect(case, pod["automountServiceAccountToken"] is False, "has a token of the Kubernetes API")
    expect(case, sorted(names) == sorted(mount["name"] for mount in container["volumeMounts"]), f"volumes and mounts differ: {names}")
    expect(case, len(environment) == len(set(environment)), "a variable is set twice")
    expect(case, all("value" not in variable for variable in container["env"] if variable["name"] == "TENDRIL_AGENT_TOKEN"), "shows the token")

    grace = int(next(v["value"] for v in container["env"] if v["name"] == "TENDRIL_SHUTDOWN_GRACE").removesuffix("s"))
    expect(case, pod["terminationGracePeriodSeconds"] >= grace + 60, "the kubelet kills before the agent's grace is over")
    annotations = by_kind["StatefulSet"]["spec"]["template"]["metadata"]["annotations"]
    expect(case, annotations["karpenter.sh/do-not-disrupt"] == "true", "Karpenter may disrupt it")
    expect(case, annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false", "the autoscaler may evict it")
    expect(case, ("Secret" in by_kind) == ("existingSecret" not in values), "a secret too many or too few")
    if "NetworkPolicy" in by_kind and not values.get("networkPolicy", {}).get("metricsFrom"):
        expect(case, by_kind["NetworkPolicy"]["spec"]["ingress"] == [], "something is let in")
    for kind in CUSTOM & by_kind.keys():
        expect(case, by_kind[kind]["metadata"]["name"] == by_kind["StatefulSet"]["metadata"]["name"], f"{kind} of another name")
    if "ScaledObject" in by_kind:
        expect(case, "replicas" not in by_kind["StatefulSet"]["spec"], "Helm and KEDA both set the replicas")
        query = by_kind["ScaledObject"]["spec"]["triggers"][0]["metadata"]["query"]
        known = (CHART.parent / "src" / "series.rs").read_text()
        for metric in re.findall(r"tendril_agent_(\w+)", query):
            expect(case, f'"{metric}"' in known, f"the agent has no metric {metric}")


def rows(text):
    """The table of values: each leaf with its default and the comment above it."""
    path, comment, found = [], [], []
    defaults = yaml.safe_load(text)
    for line in text.splitlines():
        indent = (len(line) - len(line.lstrip())) // 2
        if line.lstrip().startswith("#"):
            comment.append(line.lstrip(" #"))
        elif not line.strip():
            comment = []
        elif match := re.match(r"\s*(\w+):", line):
            path = [*path[:indent], match[1]]
            value = defaults
            for part in path:
                value = value[part]
            if comment:
                shown = "" if value in ("", None, {}, []) else f"`{value if isinstance(value, str) else json.dumps(value)}`"
                found.append(f"| `{'.'.join(path)}` | {shown} | {' '.join(comment)} |")
            elif not isinstance(value, dict) and not any(row.startswith(f"| `{path[0]}` ") for row in found):
                problems.append(f"values.yaml: {'.'.join(path)} has no comment")
            comment = []
    return "\n".join(["| value | default | meaning |", "|---|---|---|", *found])


def table(write):
    readme = CHART / "README.md"
    start, end = "<!-- values: written by scripts/check-chart.py -->\n", "\n<!-- /values -->"
    head, _, rest = readme.read_text().partition(start)
    old, _, tail = rest.partition(end)
    new = rows((CHART / "values.yaml").read_text())
    if write:
        readme.write_text(head + start + new + end + tail)
    elif old != new:
        problems.append("README.md: the table of values is not that of values.yaml; run scripts/check-chart.sh --write")


table("--write" in sys.argv)
code, _, said = helm(["lint", "--strict", "--quiet", str(CHART)], FROM_SECRET)
expect("helm lint", code == 0, said)
for case, values in CASES.items():
    try:
        resources = render(values)
    except RuntimeError as error:
        problems.append(f"{case}: {error}")
        continue
    validate(case, resources)
    always(case, values, resources)
for case, (values, message) in REFUSED.items():
    try:
        render(values)
        problems.append(f"{case}: is taken")
    except RuntimeError as error:
        expect(case, re.search(message, str(error)), f"is refused without saying {message!r}: {error}")
if problems:
    print("\n".join(problems))
else:
    print(f"the chart: {len(CASES)} cases against Kubernetes {', '.join(VERSIONS)}; {len(REFUSED)} wrong values refused")
sys.exit(bool(problems))
