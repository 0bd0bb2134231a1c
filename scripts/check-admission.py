"""The chart's admission policies, evaluated: they take the Jobs that the agent makes (the snapshots of its tests), and refuse each change
of them that would be more than a run.

    .tools/bin/admission-python scripts/check-admission.py
"""

import copy
import json
import pathlib
import subprocess
import sys

import celpy
import yaml

from chart_values import CASES, PODS

ROOT = pathlib.Path(__file__).parent.parent / "tendril-agent"
AGENT = "system:serviceaccount:tendril:tendril-agent"
RUN = "tendril-0b6c7f6e-0000-4000-8000-000000000001-1"
# What the snapshots were made with.
RULE = [{"stacks": ["*"], "serviceAccount": "tendril-run"}]
IMAGE = "registry.example.com/tendril-agent:1.0"
VALUES = PODS | {
    "admissionPolicy": {"enabled": True},
    "runs": {
        "serviceAccountMap": RULE,
        "image": IMAGE,
        "extraEnv": [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "github", "key": "token"}}}],
        "extraVolumes": [
            {"name": "key", "secret": {"secretName": "key"}},
            {"name": "both", "projected": {"sources": [{"secret": {"name": "projected"}}]}},
        ],
    },
}
problems = []


def rendered(values):
    run = subprocess.run(
        ["helm", "template", "tendril-agent", str(ROOT / "chart"), "--namespace", "tendril", "--values", "-"],
        input=json.dumps(values), capture_output=True, text=True, check=True,
    )
    resources = [document for document in yaml.safe_load_all(run.stdout) if document]
    return {resource["metadata"]["name"].rpartition(".")[2]: resource["spec"] for resource in resources if resource["kind"] == "ValidatingAdmissionPolicy"}, resources


def evaluate(expression, scope):
    environment = celpy.Environment()
    return bool(environment.program(environment.compile(expression)).evaluate(scope))


def refusals(policy, thing, user=AGENT):
    """The messages of the rules that it breaks; none where the policy is not for this user."""
    scope = {"object": celpy.json_to_cel(thing), "request": celpy.json_to_cel({"userInfo": {"username": user}})}
    if not all(evaluate(condition["expression"], scope) for condition in policy["matchConditions"]):
        return None
    variables = celpy.celtypes.MapType({})
    for variable in policy.get("variables", []):
        environment = celpy.Environment()
        program = environment.program(environment.compile(variable["expression"]))
        variables[celpy.celtypes.StringType(variable["name"])] = program.evaluate(scope | {"variables": variables})
    return [rule["message"] for rule in policy["validations"] if not evaluate(rule["expression"], scope | {"variables": variables})]


def expect(case, holds, text):
    if not holds:
        problems.append(f"{case}: {text}")


def snapshot(name):
    text = next((ROOT / "src/launch/kubernetes/snapshots").glob(f"*__{name}.snap")).read_text()
    return json.loads(text.split("---\n", 2)[2])


def changed(path, value):
    """A run's Job with another value there; a number is a place in a list, None takes the field away."""
    job = copy.deepcopy(JOB)
    place = job
    for part in path[:-1]:
        place = place[part]
    if value is None:
        del place[path[-1]]
    elif isinstance(place, list):
        place.insert(path[-1], value)
    else:
        place[path[-1]] = value
    return job


POLICIES, _ = rendered(VALUES)
JOB = snapshot("job")
POD = ["spec", "template", "spec"]
CONTAINER = [*POD, "containers", 0]
SECURITY = [*CONTAINER, "securityContext"]
NAKED = {"name": "x", "image": IMAGE}
OTHER = JOB["spec"]["template"]["spec"]["containers"][0] | {"name": "x", "image": "proxy:1"}

expect("a run", refusals(POLICIES["jobs"], JOB) == [], f"is refused: {refusals(POLICIES['jobs'], JOB)}")
for named in ("github", "key", "projected"):
    for path, value in (
        ([*CONTAINER, "env", 0], {"name": "S", "valueFrom": {"secretKeyRef": {"name": named, "key": "k"}}}),
        ([*POD, "volumes", 0], {"name": "s", "secret": {"secretName": named}}),
    ):
        said = refusals(POLICIES["jobs"], changed(path, value))
        expect(f"the Secret {named}", said == [], f"is refused: {said}")
for harmless in ({"name": "a", "configMap": {"name": "a"}}, {"name": "a", "persistentVolumeClaim": {"claimName": "plans"}}, {"name": "a", "projected": {"sources": [{"secret": {"name": f"{RUN}-x-state-0", "optional": True}}]}}):
    said = refusals(POLICIES["jobs"], changed([*POD, "volumes", 0], harmless))
    expect(str(harmless), said == [], f"is refused: {said}")
suspended = changed(["spec", "suspend"], True)
expect("the Job of a state", refusals(POLICIES["jobs"], suspended) == [], "is refused")

# Each rule refuses something, and what is refused is refused for its own reason.
hits = set()
WRONG = [
    ([*CONTAINER, "image"], "evil:1", "The image of a run is"),
    ([*POD, "containers", 1], OTHER, "The image of a run is"),
    ([*POD, "initContainers"], [OTHER], "The image of a run is"),
    ([*POD, "initContainers"], [NAKED], "A container of a run gains no rights"),
    ([*POD, "serviceAccountName"], "tendril-agent", "The service account of a run"),
    ([*POD, "serviceAccountName"], None, "The service account of a run"),
    ([*POD, "automountServiceAccountToken"], True, "A run has no token"),
    ([*POD, "automountServiceAccountToken"], None, "A run has no token"),
    (["spec", "backoffLimit"], 6, "A run is never started twice"),
    ([*POD, "restartPolicy"], "OnFailure", "A run is never started twice"),
    ([*POD, "hostNetwork"], True, "A run is not on the host's network"),
    ([*POD, "hostPID"], True, "A run is not on the host's network"),
    ([*POD, "hostIPC"], True, "A run is not on the host's network"),
    ([*POD, "securityContext"], None, "A run is no root"),
    ([*POD, "securityContext", "runAsNonRoot"], False, "A run is no root"),
    ([*POD, "securityContext", "runAsUser"], 0, "A run is no root"),
    ([*POD, "securityContext", "seccompProfile"], {"type": "Unconfined"}, "A run is no root"),
    ([*POD, "securityContext", "seccompProfile"], None, "A run is no root"),
    (SECURITY, None, "A container of a run gains no rights"),
    ([*SECURITY, "allowPrivilegeEscalation"], True, "A container of a run gains no rights"),
    ([*SECURITY, "allowPrivilegeEscalation"], None, "A container of a run gains no rights"),
    ([*SECURITY, "readOnlyRootFilesystem"], False, "A container of a run gains no rights"),
    ([*SECURITY, "privileged"], True, "A container of a run gains no rights"),
    ([*SECURITY, "runAsUser"], 0, "A container of a run gains no rights"),
    ([*SECURITY, "runAsNonRoot"], False, "A container of a run gains no rights"),
    ([*SECURITY, "capabilities", "add"], ["SYS_ADMIN"], "A container of a run gains no rights"),
    ([*SECURITY, "capabilities", "drop"], ["KILL"], "A container of a run gains no rights"),
    ([*SECURITY, "seccompProfile"], {"type": "Unconfined"}, "A container of a run gains no rights"),
    ([*SECURITY, "procMount"], "Unmasked", "A container of a run gains no rights"),
    ([*POD, "volumes", 0], {"name": "root", "hostPath": {"path": "/"}}, "A run mounts nothing of the host"),
    ([*POD, "volumes", 0], {"name": "x", "nfs": {"server": "a", "path": "/"}}, "A run mounts nothing of the host"),
    ([*POD, "volumes", 0], {"name": "x", "secret": {"secretName": "tendril-agent"}}, "A run mounts its own Secrets"),
    ([*POD, "volumes", 0], {"name": "x", "projected": {"sources": [{"secret": {"name": "other"}}]}}, "A run mounts its own Secrets"),
    ([*CONTAINER, "env", 0], {"name": "S", "valueFrom": {"secretKeyRef": {"name": "tendril-agent", "key": "k"}}}, "A run has variables from those"),
    ([*CONTAINER, "envFrom"], [{"secretRef": {"name": "other"}}], "A run has variables from those"),
]
for path, value, message in WRONG:
    case = f"{'.'.join(map(str, path))} = {json.dumps(value)[:80]}"
    said = refusals(POLICIES["jobs"], changed(path, value))
    expect(case, len(said) == 1 and said[0].startswith(message), f"is refused with {said}, not with {message!r}")
    hits |= set(said)
    expect(case, refusals(POLICIES["jobs"], changed(path, value), "system:serviceaccount:tendril:other") is None, "is somebody else's, and judged")

PLANS = "system:serviceaccount:tendril:tendril-agent-plans"
for user in (AGENT, PLANS):
    for name in (f"{RUN}-89abcdef", f"{RUN}-go-89abcdef", f"{RUN}-89abcdef-plan", f"{RUN}-89abcdef-state-3", f"{RUN}-go-89abcdef-late"):
        for kind in ({}, {"type": "Opaque"}):
            said = refusals(POLICIES["secrets"], {"metadata": {"name": name}} | kind, user)
            expect(f"the Secret {name}", said == [], f"is refused: {said}")
    for secret, message in (
        ({"metadata": {"name": f"{RUN}-x"}, "type": "kubernetes.io/service-account-token"}, "What a run is given"),
        ({"metadata": {"name": "tendril-agent"}}, "The Secrets of a run are called"),
        ({"metadata": {"name": f"x-{RUN}-x"}}, "The Secrets of a run are called"),
    ):
        said = refusals(POLICIES["secrets"], secret, user)
        expect(str(secret), len(said) == 1 and said[0].startswith(message), f"is refused with {said}, not with {message!r}")
        hits |= set(said)
expect("the Secrets of others", refusals(POLICIES["secrets"], {"metadata": {"name": "a"}}, "admin") is None, "are judged")
for policy in POLICIES.values():
    for rule in policy["validations"]:
        expect("the policies", rule["message"] in hits, f"nothing is refused with {rule['message']!r}")

# Of every case with a policy: each expression is one, the names are those of the values, and each policy is bound to deny.
for case, values in CASES.items():
    policies, resources = rendered(values)
    wanted = values.get("admissionPolicy", {}).get("enabled", False)
    expect(case, sorted(policies) == (["jobs", "secrets"] if wanted else []), f"has the policies {sorted(policies)}")
    bound = {resource["spec"]["policyName"]: resource["spec"] for resource in resources if resource["kind"] == "ValidatingAdmissionPolicyBinding"}
    names = {resource["metadata"]["name"] for resource in resources if resource["kind"] == "ValidatingAdmissionPolicy"}
    expect(case, bound.keys() == names and all(binding["validationActions"] == ["Deny"] for binding in bound.values()), f"binds {bound}")
    if not wanted:
        continue
    deployment = next(resource for resource in resources if resource["kind"] == "Deployment")["spec"]["template"]["spec"]
    user = f"system:serviceaccount:tendril:{deployment['serviceAccountName']}"
    template = yaml.safe_load(next(resource for resource in resources if resource["kind"] == "ConfigMap")["data"]["pod-template.yaml"])["spec"]
    # As the agent makes it of the template, in what the policy judges.
    job = copy.deepcopy(JOB)
    pod = job["spec"]["template"]["spec"]
    run = next(container for container in template["containers"] if container["name"] == "run")
    pod["volumes"] = [*template.get("volumes", []), *pod["volumes"]]
    pod["containers"][0] = pod["containers"][0] | {"env": run["env"], "image": next(variable["value"] for variable in deployment["containers"][0]["env"] if variable["name"] == "TENDRIL_RUN_IMAGE"), "securityContext": run["securityContext"]}
    pod["securityContext"] = template["securityContext"]
    for rule in values["runs"]["serviceAccountMap"]:
        pod["serviceAccountName"] = rule["serviceAccount"]
        said = refusals(policies["jobs"], job, user)
        expect(f"{case}: a run as {rule['serviceAccount']}", said == [], f"is refused: {said}")
if problems:
    print("\n".join(problems))
else:
    print(f"the admission policies: {len(WRONG)} changes of a run refused, each by its own rule")
sys.exit(bool(problems))
