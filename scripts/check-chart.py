"""The Helm chart, rendered by the real Helm: every resource against the schemas of three Kubernetes versions, what must be so
whatever the values, the errors for wrong values (each rule of the schema and each sentence of _checks.tpl is tried), the alerts, and
the table of values in its README.

    .tools/bin/kubernetes-python scripts/check-chart.py [--write]      --write: write the table instead of comparing it
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

CHART = pathlib.Path(__file__).parent.parent / "tendril-agent" / "chart"
# The oldest that Chart.yaml takes, the newest known, and one between.
VERSIONS = ("1.29", "1.33", "1.37")
# Described by their operators, not by Kubernetes.
CUSTOM = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}
KEY = "tdl_" + "0" * 65
FROM_SECRET = {"existingSecret": "mine"}
MONITORING = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
SCRAPED = {"networkPolicy": {"metricsFrom": MONITORING}}
KEDA = SCRAPED | {"keda": {"enabled": True, "prometheusAddress": "http://prometheus:9090"}, "shutdown": {"grace": 3000}}
# Settings of the agent that have no value here: a pod's image and volume fix them, or a newer name stands for them.
NO_VALUE = {"TENDRIL_ON_STOP", "SUPABASE_ANON_KEY", "TENDRIL_TERRAFORM", "TENDRIL_PLUGIN_CACHE_DIR", "TENDRIL_INFRACOST"}
REMOTE = {"state": {"backend": "s3", "config": {"bucket": "b", "region": "eu-central-1"}}}
DIGEST = "sha256:" + "0" * 64

CASES = {
    "the least": FROM_SECRET,
    "what `grape up` installs": {"existingSecret": "tendril-agent", "tokenFrom": "file"},
    "a secret made by the chart": {"agentToken": KEY, "supabase": {"url": "https://a.supabase.co", "publishableKey": "k"}},
    "all but the token among the values": FROM_SECRET | {"supabase": {"url": "https://a.supabase.co", "publishableKey": "k"}},
    "a part of a parent chart": FROM_SECRET | {"enabled": True, "global": {"a": 1}},
    "state in PostgreSQL": FROM_SECRET | {"state": {"backend": "pg"}, "networkPolicy": {"egressPorts": [443, 5432]}},
    "settings of a state from a Secret": FROM_SECRET
    | {"state": {"backend": "s3"}, "extraEnv": [{"name": "TENDRIL_STATE_CONFIG", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
    "many jobs": FROM_SECRET | {"concurrency": 8, "resources": {"limits": {"memory": "10G"}}},
    "no limit of memory": FROM_SECRET | {"concurrency": 64, "resources": {"limits": None}},
    "a small volume": FROM_SECRET | {"persistence": {"size": "7.5Gi"}},
    "a limit of one's own": FROM_SECRET | {"workLimit": "15GiB"},
    "its clock": FROM_SECRET | {"timing": {"heartbeat": "10s", "lockTimeout": "5m", "applyCancelGrace": "1h30m"}},
    "token from a file": FROM_SECRET | {"tokenFrom": "file"},
    "no cost estimates": FROM_SECRET | {"infracost": {"enabled": False, "existingSecret": "prices"}},
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
        "terraformConfig": "/etc/terraform/config.tfrc",
        "keda": {"enabled": True, "prometheusAddress": "http://prometheus:9090", "authenticationRef": "prometheus"},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "networkPolicy": {
            "egressPorts": [443, 22],
            "metricsFrom": MONITORING,
            "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
        },
        "persistence": {"storageClass": "gp3", "size": "20Gi"},
        "infracost": {"existingSecret": "prices", "secretKey": "token"},
        "git": {"hosts": ["github.com/acme/*", "git.example.org:8443"], "tokenFor": ["github.com/acme/*"], "token": True, "user": "oauth2"},
        "hooks": {"dir": "/etc/tendril/hooks", "timeout": "2m"},
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

MADE = {"agentToken": KEY, "supabase": {"url": "https://a.supabase.co", "publishableKey": "k"}}
# Values that are wrong in a way that _checks.tpl has a sentence for, and a part of that sentence. Secrets are not to be repeated.
REFUSED = {
    "no secret and nothing for one": ({}, "set existingSecret to the name of a Secret"),
    "half of what a secret needs": ({"agentToken": KEY}, "or set all of agentToken, supabase.url"),
    "a token that is none": (MADE | {"agentToken": "s3cret"}, "agentToken is neither an API key"),
    "a key that was cut": (MADE | {"agentToken": "tdl_s3cret"}, "copy it again, whole"),
    "an address that is none": (MADE | {"supabase": {"url": "a.supabase.co", "publishableKey": "k"}}, "supabase.url is not the URL of a project"),
    "an address with a password": (MADE | {"supabase": {"url": "https://u:s3cret@a.co", "publishableKey": "k"}}, "without a user name"),
    "a secret key": (MADE | {"supabase": {"url": "https://a.co", "publishableKey": "sb_secret_s3cret"}}, "roll the secret key"),
    "a key with a line break": (MADE | {"supabase": {"url": "https://a.co", "publishableKey": "s3cret\n"}}, "holds a space or a line break"),
    "a name that is none": (FROM_SECRET | {"nameOverride": "Runner_"}, 'nameOverride is "Runner_"'),
    "a digest that is none": (FROM_SECRET | {"image": {"digest": "latest"}}, "A tag goes to image.tag"),
    "a size that is none": (FROM_SECRET | {"persistence": {"size": "10 GB"}}, 'persistence.size is "10 GB"'),
    "a variable of no name": (FROM_SECRET | {"terraformEnv": ["A B"]}, 'terraformEnv holds "A B"'),
    "a role that is a name": (FROM_SECRET | {"aws": {"roleArn": "agent"}}, "write the role's whole ARN"),
    "a region of another cloud": (FROM_SECRET | {"aws": {"region": "westeurope"}}, "aws.region is"),
    "a share of agents that is none": (FROM_SECRET | {"podDisruptionBudget": {"maxUnavailable": "half"}}, "a percentage such as 50%"),
    "a time that is none": (FROM_SECRET | {"serviceMonitor": {"interval": "often"}}, "serviceMonitor.interval is"),
    "a Prometheus without a scheme": (FROM_SECRET | {"keda": {"prometheusAddress": "prometheus:9090"}}, "keda.prometheusAddress is"),
    "a limit without a unit": (FROM_SECRET | {"spoolLimit": "much"}, 'spoolLimit is "much"'),
    "a name of a key that is none": (FROM_SECRET | {"infracost": {"secretKey": "a key"}}, 'infracost.secretKey is "a key"'),
    "an estimate that holds up jobs": (FROM_SECRET | {"timing": {"costTimeout": "5m"}}, 'timing.costTimeout is "5m"'),
    "a time that is none for a hook": (FROM_SECRET | {"hooks": {"timeout": "soon"}}, 'hooks.timeout is "soon"'),
    "hooks beside nothing": (FROM_SECRET | {"hooks": {"dir": "hooks"}}, 'hooks.dir is "hooks"'),
    "a configuration beside nothing": (FROM_SECRET | {"terraformConfig": "config.tfrc"}, 'terraformConfig is "config.tfrc"'),
    "a grace that is too short for the agent's": (
        FROM_SECRET | {"shutdown": {"grace": 900}, "terminationGracePeriodSeconds": 959},
        "must be at least shutdown.grace and 60 s: 960",
    ),
    "replicas with local state": (FROM_SECRET | {"replicas": 2}, "set state.backend to s3, http or pg"),
    "replicas with one volume": (FROM_SECRET | REMOTE | {"replicas": 2, "persistence": {"existingClaim": "c"}}, "each replica needs its own"),
    "credentials of the state among the values": (
        FROM_SECRET | {"state": {"backend": "s3", "config": {"bucket": "b", "secret_key": "s3cret"}}},
        "state.config.secret_key is a credential .* set AWS_SECRET_ACCESS_KEY in extraEnv",
    ),
    "a user's name of the state among the values": (
        FROM_SECRET | {"state": {"backend": "http", "config": {"address": "https://s/{key}", "username": "u"}}},
        "state.config.username is a credential .* set TF_HTTP_USERNAME in extraEnv",
    ),
    "a key of the state among the values": (
        FROM_SECRET | {"state": {"backend": "http", "config": {"address": "https://s/{key}", "client_private_key_pem": "p"}}},
        "set TF_HTTP_CLIENT_PRIVATE_KEY_PEM",
    ),
    "S3 without a bucket": (FROM_SECRET | {"state": {"backend": "s3"}}, "state.backend s3 needs state.config.bucket"),
    "HTTP without an address": (FROM_SECRET | {"state": {"backend": "http"}}, "state.backend http needs state.config.address"),
    "PostgreSQL behind a closed port": (FROM_SECRET | {"state": {"backend": "pg"}}, "networkPolicy.egressPorts"),
    "KEDA without Prometheus": (
        FROM_SECRET | REMOTE | KEDA | {"keda": {"enabled": True}},
        "keda.enabled needs keda.prometheusAddress",
    ),
    "KEDA with local state": (FROM_SECRET | KEDA, "state.backend"),
    "KEDA upside down": (FROM_SECRET | REMOTE | KEDA | {"keda": KEDA["keda"] | {"minReplicas": 6}}, "keda.maxReplicas is less"),
    "KEDA whose metrics nobody may read": (
        FROM_SECRET | REMOTE | KEDA | {"networkPolicy": {}},
        "keda.enabled needs networkPolicy.metricsFrom",
    ),
    "KEDA with a short grace": (FROM_SECRET | REMOTE | KEDA | {"shutdown": {"grace": 1799}}, "at least 1800, it is 1799"),
    "metrics that nobody may read": (
        FROM_SECRET | {"serviceMonitor": {"enabled": True}},
        "serviceMonitor.enabled needs networkPolicy.metricsFrom",
    ),
    "more jobs than memory": (FROM_SECRET | {"concurrency": 4}, "resources.limits.memory is 3Gi with a concurrency of 4.* 5Gi"),
    "memory in another unit": (FROM_SECRET | {"resources": {"limits": {"memory": "2000M"}}}, "resources.limits.memory is 2000M"),
    "a limit that is never reached": (FROM_SECRET | {"workLimit": "20GiB"}, "workLimit is 20GiB and persistence.size 20Gi"),
    "a limit in Kubernetes' unit": (FROM_SECRET | {"workLimit": "10Gi"}, "write a size as the agent does, such as 14GiB"),
    "a heartbeat slower than the lease": (FROM_SECRET | {"timing": {"heartbeat": "30s"}}, "timing.heartbeat is \"30s\""),
    "a time without a unit": (FROM_SECRET | {"timing": {"lockTimeout": "120"}}, "timing.lockTimeout is \"120\""),
    "a variable that the chart sets": (
        FROM_SECRET | {"extraEnv": [{"name": "TENDRIL_STATE_BACKEND", "value": "kubernetes"}]},
        "extraEnv: TENDRIL_STATE_BACKEND would be set twice: the chart has a value for it",
    ),
    "a region twice": (
        FROM_SECRET | {"aws": {"region": "eu-central-1"}, "extraEnv": [{"name": "AWS_REGION", "value": "x"}]},
        "AWS_REGION would be set twice",
    ),
    "a variable twice": (
        FROM_SECRET | {"extraEnv": [{"name": "A", "value": "x"}, {"name": "A", "value": "y"}]},
        "A would be set twice: it is there already",
    ),
    "a role for nobody": (
        FROM_SECRET | {"aws": {"roleArn": "arn:aws:iam::123456789012:role/a"}, "serviceAccount": {"create": False}},
        "aws.roleArn",
    ),
    "a Git host that is none": (FROM_SECRET | {"git": {"hosts": ["https://github.com"]}}, "git"),
    "a Git limit that is no size": (FROM_SECRET | {"git": {"limit": "1G"}}, 'git.limit is "1G"'),
    "a Git token for no host": (FROM_SECRET | {"git": {"token": True}}, "set git.hosts"),
    "a Git token without a Secret": (
        {"agentToken": KEY, "supabase": {"url": "https://a", "publishableKey": "k"}, "git": {"hosts": ["github.com"], "token": True}},
        "git.token needs existingSecret",
    ),
    "a secret in plain environment": (FROM_SECRET | {"extraEnv": [{"name": "TENDRIL_AGENT_TOKEN", "value": "s3cret"}]}, "extraEnv: TENDRIL_AGENT_TOKEN would be set twice"),
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


def notes(values):
    """What an installation says, without a cluster."""
    code, out, output = helm(["install", "tendril-agent", str(CHART), "--namespace", "tendril", "--dry-run=client"], values)
    expect("NOTES.txt", code == 0, output)
    return out.partition("NOTES:")[2]


def render(values):
    code, out, output = helm(["template", "tendril-agent", str(CHART), "--namespace", "tendril"], values)
    if code != 0:
        raise RuntimeError(output)
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
    plain = {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}

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

    given = values.get("supabase", {}).get("url")
    expect(case, plain.get("SUPABASE_URL") == given, "the project's URL among the values is not what the agent gets")
    grace = int(plain["TENDRIL_SHUTDOWN_GRACE"].removesuffix("s"))
    expect(case, pod["terminationGracePeriodSeconds"] >= grace + 60, "the kubelet kills before the agent's grace is over")
    if "workLimit" not in values and "size" not in values.get("persistence", {}):
        expect(case, plain.get("TENDRIL_WORK_LIMIT") == "14336MiB", f"the work limit is {plain.get('TENDRIL_WORK_LIMIT')}, not 70 % of 20Gi")
    annotations = by_kind["StatefulSet"]["spec"]["template"]["metadata"]["annotations"]
    expect(case, annotations["karpenter.sh/do-not-disrupt"] == "true", "Karpenter may disrupt it")
    expect(case, annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false", "the autoscaler may evict it")
    expect(case, ("Secret" in by_kind) == ("existingSecret" not in values), "a secret too many or too few")
    if "NetworkPolicy" in by_kind and not values.get("networkPolicy", {}).get("metricsFrom"):
        expect(case, by_kind["NetworkPolicy"]["spec"]["ingress"] == [], "something is let in")
    if "NetworkPolicy" in by_kind:
        reached = [block["ipBlock"]["cidr"] for rule in by_kind["NetworkPolicy"]["spec"]["egress"] for block in rule.get("to", [])]
        expect(case, {"169.254.170.23/32", "fd00:ec2::23/128"} <= set(reached), f"Pod Identity is out of reach: {reached}")
    for kind in CUSTOM & by_kind.keys():
        expect(case, by_kind[kind]["metadata"]["name"] == by_kind["StatefulSet"]["metadata"]["name"], f"{kind} of another name")
    if "ScaledObject" in by_kind:
        expect(case, "replicas" not in by_kind["StatefulSet"]["spec"], "Helm and KEDA both set the replicas")
        query = by_kind["ScaledObject"]["spec"]["triggers"][0]["metadata"]["query"]
        known = "".join(path.read_text() for path in sorted((CHART.parent / "src").rglob("*.rs")))
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


def settings():
    """Each setting of the agent can be reached: its variable is one that the chart sets, given everything."""
    text = (CHART.parent / "src" / "config" / "args.rs").read_text()
    # The image is built without this feature.
    text = re.sub(r'#\[cfg\(feature = "kubernetes"\)\]\s*#\[arg\(.*?\)\]', "", text, flags=re.S)
    known = set(re.findall(r'env = "(\w+)"', text)) - NO_VALUE
    container = next(item for item in render(CASES["everything"]) if item["kind"] == "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    here = {variable["name"] for variable in container["env"]} | {"TENDRIL_AGENT_TOKEN_FILE"}
    # A Secret reaches the agent as a variable or as a file.
    here |= {name.removesuffix("_FILE") for name in here if name.endswith("_FILE")}
    expect("settings", known <= here, f"the chart has no value for {', '.join(sorted(known - here))}")


def defaults():
    """Numbers that somebody else's limits decide."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    # An update of EKS managed nodes evicts pods for 15 minutes, and then fails.
    expect("defaults", values["shutdown"]["grace"] + 60 < 900, "the grace is longer than EKS managed nodes wait")
    output = notes(FROM_SECRET)
    for hint in ("kubectl get storageclass", "describe pvc data-tendril-agent-0", "doctor", "service account tendril/tendril-agent"):
        expect("NOTES.txt", hint in output, f"has no {hint!r}")
    named = notes(FROM_SECRET | {"persistence": {"storageClass": "gp3"}})
    expect("NOTES.txt", "get storageclass" not in named and "describe pvc" in named, "asks for a class that was named")
    # The one name that the templates and all documents use: EKS Pod Identity goes by it.
    root = CHART.parent.parent
    for file in (root / "README.md", CHART / "README.md", *root.glob("templates/*/README.md")):
        for release in re.findall(r"helm (?:upgrade --)?install (\S+)", file.read_text()):
            expect(str(file.relative_to(root)), release == "tendril-agent", f"installs a release named {release}")


def sentences(output):
    """Each sentence of _checks.tpl was printed for some values."""
    found = re.findall(r'fail \(?(?:printf )?"((?:[^"\\]|\\.)*)"', (CHART / "templates" / "_checks.tpl").read_text())
    expect("_checks.tpl", len(found) > 10, "its sentences are not found")
    for sentence in found:
        pattern = ".*".join(re.escape(part) for part in re.split(r"%[a-z]", sentence)).replace("%%", "%")
        expect("_checks.tpl", any(re.search(pattern, error) for error in output), f"no case prints: {sentence}")


def wrong(rule):
    """Values that break a rule of the schema, each with what the refusal names."""
    kinds = rule.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds:
        yield next(value for kind, value in (("string", "x"), ("integer", 1), ("boolean", True), ("array", [])) if kind not in kinds), "got "
    if "enum" in rule:
        yield "no-such-choice", "value must be one of"
    if "minimum" in rule:
        yield rule["minimum"] - 1, "minimum"
    if "maximum" in rule:
        yield rule["maximum"] + 1, "maximum"
    if "minLength" in rule:
        yield "", "minLength"
    if "minItems" in rule:
        yield [], "minItems"
    if "pattern" in rule:
        yield "\u0007 no", "does not match pattern"
    if "required" in rule:
        yield {}, "missing propert"
    if rule.get("additionalProperties") is False:
        yield {"noSuchValue": 1}, "'noSuchValue' not allowed"


def schema_rules():
    """Every rule of the schema refuses what breaks it, and says where it stands."""
    tried = 0

    def walk(rule, path, wrap):
        nonlocal tried
        for value, words in wrong(rule):
            tried += 1
            code, _, output = helm(["template", "tendril-agent", str(CHART)], FROM_SECRET | wrap(value))
            place = f"at '/{'/'.join(path)}'" if path else "at ''"
            expect(
                f"{'.'.join(path)} = {json.dumps(value)}",
                code != 0 and place in output and words in output,
                f"is not refused with its place and {words!r}: {output or 'it is taken'}",
            )
        for name, inner in rule.get("properties", {}).items():
            walk(inner, [*path, name], lambda value, name=name: wrap({name: value}))
        if isinstance(rule.get("items"), dict):
            walk(rule["items"], [*path, "0"], lambda value: wrap([value]))
        if isinstance(rule.get("additionalProperties"), dict):
            walk(rule["additionalProperties"], [*path, "key"], lambda value: wrap({"key": value}))

    schema = json.loads((CHART / "values.schema.json").read_text())
    walk(schema | {"type": []}, [], lambda value: value)
    return tried


def alerts():
    """The alerts: in promtool's eyes, against the agent's metrics, and each of them fires in a test."""
    file = CHART / "files" / "alerts.yaml"
    rules = yaml.safe_load(file.read_text())["groups"][0]["rules"]
    names = {rule["alert"] for rule in rules}
    known = dict(re.findall(r"^\| `(tendril_agent_\w+)` \| \w+ \| (.*?) \|", (CHART.parent / "METRICS.md").read_text(), re.M))
    for rule in rules:
        for metric, labels in re.findall(r"(tendril_agent_\w+)(\{[^}]*\})?", rule["expr"]):
            expect(rule["alert"], metric in known, f"the agent has no metric {metric}")
            for label, value in re.findall(r'(\w+)="(\w+)"', labels):
                name, _, values = known.get(metric, "").partition(": ")
                expect(rule["alert"], label == name and value in values.split(", "), f"{metric} has no {label}={value}")
    test = CHART.parent / "tests" / "alerts.yaml"
    missing = names - set(re.findall(r"TendrilAgent\w+", test.read_text()))
    expect("alerts.yaml", not missing, f"no test sets off {missing}")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as placed:
        placed.write(test.read_text().replace("[ALERTS]", json.dumps([str(file)])))
        placed.flush()
        for command in (["check", "rules", str(file)], ["test", "rules", placed.name]):
            run = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
            expect(f"promtool {command[0]} rules", run.returncode == 0, run.stdout + run.stderr)


table("--write" in sys.argv)
settings()
defaults()
code, _, output = helm(["lint", "--strict", "--quiet", str(CHART)], FROM_SECRET)
expect("helm lint", code == 0, output)
for case, values in CASES.items():
    try:
        resources = render(values)
    except RuntimeError as error:
        problems.append(f"{case}: {error}")
        continue
    validate(case, resources)
    always(case, values, resources)
output = []
for case, (values, message) in REFUSED.items():
    try:
        render(values)
        problems.append(f"{case}: is taken")
    except RuntimeError as error:
        output.append(str(error))
        expect(case, re.search(message, str(error)), f"is refused without saying {message!r}: {error}")
        expect(case, "s3cret" not in str(error), f"the refusal shows a secret: {error}")
sentences(output)
rules = schema_rules()
alerts()
if problems:
    print("\n".join(problems))
else:
    print(f"the chart: {len(CASES)} cases against Kubernetes {', '.join(VERSIONS)}; {len(REFUSED)} wrong values and {rules} rules of the schema refused")
sys.exit(bool(problems))
