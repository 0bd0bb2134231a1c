"""The Helm chart, rendered by the real Helm: every resource against the schemas of three Kubernetes versions, what must be so
whatever the values, the errors for wrong values (each rule of the schema and each sentence of the checks is tried), the rights that the
agent asks for, the alerts, and the table of values in its README.

    .tools/bin/kubernetes-python scripts/check-chart.py [--write]      --write: write the table and fixtures instead of comparing them
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

from chart_values import CASES, FROM_SECRET, PODS, REFUSED, pods

CHART = pathlib.Path(__file__).parent.parent / "tendril-agent" / "chart"
# The oldest that Chart.yaml takes, the newest known, and one between.
VERSIONS = ("1.29", "1.33", "1.37")
# Described by their operators, not by Kubernetes.
# Kinds that came later than the oldest of them; they are off by default.
SINCE = {"ValidatingAdmissionPolicy": (1, 30), "ValidatingAdmissionPolicyBinding": (1, 30)}
CUSTOM = {"ServiceMonitor", "PodMonitor", "PrometheusRule", "ScaledObject"}
# Settings of the agent that have no value here: a pod's image and volume fix them, or a newer name stands for them.
NO_VALUE = {
    "TENDRIL_ON_STOP",
    "SUPABASE_ANON_KEY",
    "TENDRIL_TERRAFORM",
    "TENDRIL_PLUGIN_CACHE_DIR",
    "TENDRIL_INFRACOST",
    "TENDRIL_SLOT_UID_BASE",
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
            if tuple(map(int, version.split("."))) < SINCE.get(resource["kind"], (0,)):
                continue
            try:
                kubernetes_validate.validate(resource, version, strict=True)
            except Exception as error:  # noqa: BLE001 one of several kinds, all of them mean the same
                problems.append(f"{case}: {resource['kind']}, Kubernetes {version}: {error}")


def restricted(case, pod):
    """Pod Security Standard "restricted", and beyond."""
    container = pod["containers"][0]
    security = container["securityContext"]
    expect(case, pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0, "may run as root")
    expect(case, pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, "no seccomp profile")
    expect(case, security["allowPrivilegeEscalation"] is False and security["capabilities"] == {"drop": ["ALL"]}, "may gain rights")
    expect(case, not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys() and "initContainers" not in pod, "is on the host")
    expect(case, not any("hostPath" in volume for volume in pod.get("volumes", [])), "mounts the host")
    expect(case, security["readOnlyRootFilesystem"] is True, "its root file system can be written")
    environment = [variable["name"] for variable in container["env"]]
    expect(case, len(environment) == len(set(environment)), "a variable is set twice")
    expect(case, all("value" not in variable for variable in container["env"] if variable["name"] == "TENDRIL_AGENT_TOKEN"), "shows the token")


def always(case, values, resources):
    """What holds whatever the values."""
    by_kind = {resource["kind"]: resource for resource in resources}
    in_pods = values.get("launcher") == "kubernetes"
    expect(case, not {"ClusterRole", "ClusterRoleBinding", "Ingress"} & by_kind.keys(), "rights on the whole cluster, or an ingress")
    agent = by_kind["Deployment" if in_pods else "StatefulSet"]
    expect(case, ("StatefulSet" in by_kind, "Service" in by_kind) == (not in_pods, not in_pods), "both kinds of agents, or none")
    name = agent["metadata"]["name"]
    expect(case, len(name) <= 52 and re.fullmatch("[a-z0-9]([a-z0-9-]*[a-z0-9])?", name), f"the name {name} is none")
    pod = agent["spec"]["template"]["spec"]
    container = pod["containers"][0]
    names = [volume["name"] for volume in pod["volumes"]]
    names += [claim["metadata"]["name"] for claim in agent["spec"].get("volumeClaimTemplates", [])]
    plain = {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}
    restricted(case, pod)
    expect(case, pod["automountServiceAccountToken"] is in_pods, "has a token of the Kubernetes API, or needs one")
    expect(case, sorted(names) == sorted(mount["name"] for mount in container["volumeMounts"]), f"volumes and mounts differ: {names}")
    given = values.get("supabase", {}).get("url")
    expect(case, plain.get("SUPABASE_URL") == given, "the project's URL among the values is not what the agent gets")
    grace = int(plain["TENDRIL_SHUTDOWN_GRACE"].removesuffix("s"))
    expect(case, pod["terminationGracePeriodSeconds"] >= grace + (30 if in_pods else 60), "the kubelet kills before the agent's grace is over")
    expect(case, ("Secret" in by_kind) == ("existingSecret" not in values), "a secret too many or too few")
    policies = [resource for resource in resources if resource["kind"] == "NetworkPolicy"]
    if policies and not values.get("networkPolicy", {}).get("metricsFrom"):
        expect(case, all(policy["spec"]["ingress"] == [] for policy in policies), "something is let in")
    if policies:
        # Whoever runs Terraform has an identity.
        reached = [block["ipBlock"]["cidr"] for rule in policies[-1]["spec"]["egress"] for block in rule.get("to", [])]
        expect(case, {"169.254.170.23/32", "fd00:ec2::23/128"} <= set(reached), f"Pod Identity is out of reach: {reached}")
    for kind in CUSTOM & by_kind.keys():
        expect(case, by_kind[kind]["metadata"]["name"] == name, f"{kind} of another name")
    (always_in_pods if in_pods else always_in_the_agent)(case, values, resources)


def always_in_the_agent(case, values, resources):
    """What holds where Terraform runs in the agent's pod."""
    by_kind = {resource["kind"]: resource for resource in resources}
    expect(case, not {"Role", "RoleBinding"} & by_kind.keys(), "rights")
    template = by_kind["StatefulSet"]["spec"]["template"]
    plain = {variable["name"]: variable.get("value") for variable in template["spec"]["containers"][0]["env"]}
    if "workLimit" not in values and "size" not in values.get("persistence", {}):
        expect(case, plain.get("TENDRIL_WORK_LIMIT") == "14336MiB", f"the work limit is {plain.get('TENDRIL_WORK_LIMIT')}, not 70 % of 20Gi")
    annotations = template["metadata"]["annotations"]
    expect(case, annotations["karpenter.sh/do-not-disrupt"] == "true", "Karpenter may disrupt it")
    expect(case, annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false", "the autoscaler may evict it")
    if "ScaledObject" in by_kind:
        expect(case, "replicas" not in by_kind["StatefulSet"]["spec"], "Helm and KEDA both set the replicas")
        query = by_kind["ScaledObject"]["spec"]["triggers"][0]["metadata"]["query"]
        known = "".join(path.read_text() for path in sorted((CHART.parent / "src").rglob("*.rs")))
        for metric in re.findall(r"tendril_agent_(\w+)", query):
            expect(case, f'"{metric}"' in known, f"the agent has no metric {metric}")


def run_files(resources):
    """What the agent makes the pods of runs from: the map of service accounts, and the pod template."""
    data = next(resource for resource in resources if resource["kind"] == "ConfigMap")["data"]
    return yaml.safe_load(data["service-account-map.yaml"]), yaml.safe_load(data["pod-template.yaml"])


def always_in_pods(case, values, resources):
    """What holds where each job is a pod."""
    by_kind = {resource["kind"]: resource for resource in resources}
    accounts, template = run_files(resources)
    validate(case, [{"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "run"}, "template": template}])
    restricted(f"{case}: a run", template["spec"])
    near = values["runs"].get("namespace", "tendril")
    agent = by_kind["Deployment"]["spec"]["template"]["spec"]
    container = agent["containers"][0]
    mine = {variable["name"]: variable.get("value") for variable in container["env"]}
    theirs = {variable["name"]: variable.get("value") for variable in template["spec"]["containers"][0]["env"]}

    # A run has no key, and the same state as the agent.
    expect(case, not any(name.startswith(("SUPABASE_", "TENDRIL_AGENT_TOKEN")) for name in theirs), "a run has the agent's key")
    expect(case, mine["TENDRIL_AGENT_TOKEN_FILE"] == "/etc/tendril/TENDRIL_AGENT_TOKEN" and "TENDRIL_AGENT_TOKEN" not in mine, "the key is no file")
    for secret in (volume["secret"] for volume in template["spec"].get("volumes", []) if "secret" in volume):
        expect(case, "TENDRIL_AGENT_TOKEN" not in [item["key"] for item in secret["items"]], "a run has the Secret with the key")
    for name in ("TENDRIL_STATE_BACKEND", "TENDRIL_STATE_CONFIG", "TENDRIL_HEARTBEAT", "TENDRIL_APPLY_CANCEL_GRACE"):
        expect(case, mine.get(name) == theirs.get(name), f"the agent and its runs differ in {name}")
    expect(case, mine["TENDRIL_RUN_NAMESPACE"] == near, "runs are somewhere else")
    sidecars = [name for name in mine if name.startswith("TENDRIL_GIT") and name != "TENDRIL_GIT_TIMEOUT"]
    expect(case, sidecars == [], f"the agent has what only runs need: {sidecars}")

    # Names, and what is selected by labels.
    named = {rule["serviceAccount"] for rule in accounts}
    made = {resource["metadata"]["name"]: resource for resource in resources if resource["kind"] == "ServiceAccount"}
    expect(case, agent["serviceAccountName"] in made or "serviceAccount" in values, "the agent has no account")
    if values["runs"].get("serviceAccounts", {}).get("create", True):
        expect(case, named <= made.keys(), f"no service account {named - made.keys()}")
    for account in named & made.keys():
        expect(case, made[account]["metadata"]["namespace"] == near, f"the account {account} is elsewhere")
        expect(case, made[account]["automountServiceAccountToken"] is False, f"{account} has a token")
    policies = {resource["metadata"]["name"]: resource["spec"] for resource in resources if resource["kind"] == "NetworkPolicy"}
    if policies:
        ours = by_kind["Deployment"]["metadata"]["name"]
        wanted = policies[f"{ours}-runs"]["podSelector"]["matchLabels"]
        expect(case, wanted.pop("app.kubernetes.io/name") == "tendril-run" and wanted.items() <= template["metadata"]["labels"].items(), "the policy is for other pods")
        expect(case, policies[ours]["podSelector"]["matchLabels"].items() <= by_kind["Deployment"]["spec"]["template"]["metadata"]["labels"].items(), "the policy is for other pods")
    for budget in (resource for resource in resources if resource["kind"] == "PodDisruptionBudget" and "minAvailable" in resource["spec"]):
        selected = budget["spec"]["selector"]["matchLabels"].items() - {("app.kubernetes.io/name", "tendril-run")}
        expect(case, selected <= template["metadata"]["labels"].items() and budget["metadata"]["namespace"] == near, "the budget is for other pods")
    if values.get("rbac", {}).get("create", True):
        roles(case, values, resources, near, named, mine["TENDRIL_LEASE"])
    else:
        expect(case, not {"Role", "RoleBinding"} & by_kind.keys(), "Roles, although nobody wants them")


def rights(constant):
    """The rights in a constant of the agent: (group, resource, verb)."""
    text = (CHART.parent / "src" / "launch" / "kubernetes" / "preflight.rs").read_text()
    body = re.search(rf"const {constant}: .*?= &\[(.*?)\];", text, re.S)[1]
    return set(re.findall(r'\("([^"]*)", "([^"]*)", "([^"]*)"\)', body))


def documented(heading):
    """The rights that the guide gives a reason for, below this heading."""
    part = (CHART.parent / "docs" / "kubernetes.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return {(group.replace('""', ""), resource, verb) for group, resource, verb in re.findall(r"^\| `(\S+)` \| `(\S+)` \| `(\S+)` \|", part, re.M)}


def roles(case, values, resources, near, accounts, lease):
    """The Roles are what the agent asks for, and no more: of the dispatcher, and of the account that stores plans. Runs have none."""
    bound = {}
    for role in (resource for resource in resources if resource["kind"] == "Role"):
        expect(case, role["metadata"]["namespace"] == near, "a Role elsewhere")
        binding = next(
            resource for resource in resources
            if resource["kind"] == "RoleBinding" and resource["roleRef"]["name"] == role["metadata"]["name"]
        )
        expect(case, binding["metadata"]["namespace"] == near, "a RoleBinding elsewhere")
        given = {
            (group, resource, verb)
            for rule in role["rules"] for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]
        }
        bound[role["metadata"]["name"]] = (given, {(subject["name"], subject["namespace"]) for subject in binding["subjects"]})
    name = next(resource for resource in resources if resource["kind"] == "Deployment")["metadata"]["name"]
    given, subjects = bound.pop(name)
    # Quotas are for doctor alone, and are in none of its lists.
    wanted = rights("RIGHTS") | rights("LEASE_RIGHTS") | rights("PLAN_RIGHTS") | {("", "resourcequotas", "list")}
    explained = documented("What the agent may do")
    expect(case, wanted == explained, f"docs/kubernetes.md explains {explained - wanted} too much and {wanted - explained} too little")
    in_secrets = not values["runs"].get("planVolumeClaim")
    if not in_secrets:
        wanted -= rights("PLAN_RIGHTS")
    expect(case, given == wanted, f"the Role has {given - wanted} too much and {wanted - given} too little")
    # What can be limited to one object is: a token of any other account would be that account's rights.
    for rule in next(resource for resource in resources if resource["kind"] == "Role" and resource["metadata"]["name"] == name)["rules"]:
        named = {"serviceaccounts/token": [f"{name}-plans"], "leases": None if rule["verbs"] == ["create"] else [lease]}.get(rule["resources"][0])
        expect(case, rule.get("resourceNames") == named, f"the Role is for {rule.get('resourceNames')}, not {named}")
    expect(case, subjects == {(name, "tendril")}, f"the Role is for {subjects}")
    if in_secrets:
        given, subjects = bound.pop(f"{name}-plans")
        expect(case, given == documented("What runs may do"), f"plans are stored with {given}, and docs/kubernetes.md says otherwise")
        expect(case, subjects == {(f"{name}-plans", near)} and not accounts & {f"{name}-plans"}, f"plans are stored by {subjects}")
    expect(case, not bound, f"further Roles: {bound.keys()}")


def rows(text):
    """The table of values: each leaf with its default and the comment above it."""
    path, comment, found, shown = [], [], [], set()
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
                default = "" if value in ("", None, {}, []) else f"`{value if isinstance(value, str) else json.dumps(value)}`"
                found.append(f"| `{'.'.join(path)}` | {default} | {' '.join(comment)} |")
                shown.add(".".join(path))
            elif not isinstance(value, dict) and not shown & {".".join(path[:depth]) for depth in range(1, len(path))}:
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


def fixtures(write):
    """What the chart gives an agent and its runs, for the agent's own test (tests/chart.rs) to read."""
    resources = render(CASES["everything in pods"])
    data = next(resource for resource in resources if resource["kind"] == "ConfigMap")["data"]
    agent = next(resource for resource in resources if resource["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"][0]
    run = run_files(resources)[1]["spec"]["containers"][0]
    for name, container in (("agent.json", agent), ("run.json", run)):
        plain = {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}
        data[name] = json.dumps(plain, indent=2) + "\n"
    for name, text in data.items():
        file = CHART.parent / "tests" / "fixtures" / "chart" / name
        if write:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        elif not file.exists() or file.read_text() != text:
            problems.append(f"{file.name} is not what the chart makes; run scripts/check-chart.sh --write")


def settings():
    """Each setting of the agent can be reached: its variable is one that the chart sets, given everything."""
    known = set(re.findall(r'env = "(\w+)"', (CHART.parent / "src" / "config" / "args.rs").read_text())) - NO_VALUE
    here = {"TENDRIL_AGENT_TOKEN_FILE"}
    for case in ("everything", "three rules", "everything in pods"):
        resources = render(CASES[case])
        agents = [resource["spec"]["template"] for resource in resources if resource["kind"] in ("StatefulSet", "Deployment")]
        agents += [run_files(resources)[1]] if case != "everything" else []
        here |= {variable["name"] for pod in agents for variable in pod["spec"]["containers"][0]["env"]}
    # A Secret reaches the agent as a variable or as a file.
    here |= {name.removesuffix("_FILE") for name in here if name.endswith("_FILE")} & known
    expect("settings", known <= here, f"the chart has no value for {', '.join(sorted(known - here))}")
    invented = {name for name in here if name.startswith("TENDRIL_")} - known - NO_VALUE
    expect("settings", not invented, f"the agent does not read {', '.join(sorted(invented))}")


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
    output = notes(pods(namespace="runs", serviceAccounts={"create": False}) | {"rbac": {"create": False}})
    for hint in ("deployment/tendril-agent", "doctor", "runs/runs", "make them, or no pod starts", "needs a Role in runs", "--namespace runs get jobs"):
        expect("NOTES.txt", hint in output, f"has no {hint!r} for pods")
    # What the agent gives a run of which nothing is said.
    usual = (CHART.parent / "src" / "launch" / "kubernetes" / "settings.rs").read_text().partition("fn usual_resources")[2]
    usual = [dict(re.findall(r'\("([a-z-]+)", "(\w+)"\)', half)) for half in re.findall(r"amounts\(\[(.*?)\]\)", usual)]
    shown = [values["runs"]["resources"][kind] for kind in ("requests", "limits")]
    expect("defaults", usual == shown, f"runs.resources is {shown}, and the agent's own defaults are {usual}")
    # Names are bounded, and what Kubernetes cannot take is replaced.
    for release in ("a.b", "x" * 53, "tendril-agent", "2024", "y" * 51 + "-z"):
        code, out, output = helm(["template", release, str(CHART), "--namespace", "tendril"], PODS)
        expect(f"a release called {release}", code == 0, output)
        resources = [document for document in yaml.safe_load_all(out) if document]
        validate(f"a release called {release}", resources)
        for resource in resources:
            expect(f"a release called {release}", re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", resource["metadata"]["name"]), resource["metadata"]["name"])
            labels = resource["metadata"]["labels"].values()
            expect(f"a release called {release}", all(isinstance(label, str) and len(label) <= 63 for label in labels), str(labels))
    # The one name that the templates and all documents use: EKS Pod Identity goes by it.
    root = CHART.parent.parent
    for file in (root / "README.md", CHART / "README.md", *root.glob("templates/*/README.md")):
        for release in re.findall(r"helm (?:upgrade --)?install (\S+)", file.read_text()):
            expect(str(file.relative_to(root)), release == "tendril-agent", f"installs a release named {release}")


def sentences(output):
    """Each sentence of the checks was printed for some values."""
    for file in sorted((CHART / "templates").glob("*checks.tpl")):
        found = re.findall(r'fail \(?(?:printf )?"((?:[^"\\]|\\.)*)"', file.read_text())
        expect(file.name, len(found) > 10, "its sentences are not found")
        for sentence in found:
            sentence = sentence.replace('\\"', '"')
            pattern = ".*".join(re.escape(part) for part in re.split(r"%[a-z]", sentence)).replace("%%", "%")
            expect(file.name, any(re.search(pattern, error) for error in output), f"no case prints: {sentence}")


def wrong(rule, has_defaults):
    """Values that break a rule of the schema, each with what the refusal names. What has defaults lacks nothing unless it is null."""
    kinds = rule.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else [*kinds]
    if kinds:
        kinds += ["integer"] if "number" in kinds else []
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
        yield {name: None for name in rule["required"]} if has_defaults else {}, "missing propert"
    if rule.get("additionalProperties") is False:
        yield {"noSuchValue": 1}, "'noSuchValue' not allowed"


def schema_rules():
    """Every rule of the schema refuses what breaks it, and says where it stands."""
    tried = 0

    def walk(rule, path, wrap):
        nonlocal tried
        if "$ref" in rule:
            rule = schema["definitions"][rule["$ref"].removeprefix("#/definitions/")]
        for value, words in wrong(rule, "0" not in path):
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
fixtures("--write" in sys.argv)
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
