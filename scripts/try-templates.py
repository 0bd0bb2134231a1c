"""What the templates compute, tried with the real Terraform: rules that look at two variables, locals with the answers of AWS put in
place of the data sources, and the code of the static site.

    python3 scripts/try-templates.py terraform
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

TEMPLATES = pathlib.Path(__file__).parent.parent / "templates"
PROGRAM = sys.argv[1]
IDS = {"vpc_id": "vpc-0a", "subnet_ids": ["subnet-0a", "subnet-0b"]}
DATABASE = {"name": "prod", "region": "eu-central-1"} | IDS
NODES = {"name": "prod", "region": "eu-central-1", "cluster_name": "c", "subnet_ids": ["subnet-0b", "subnet-0a"]}


def zones(*letters_and_ids, region):
    """data.aws_availability_zones.here as AWS would answer it."""
    return {
        "aws_availability_zones.here": {
            "names": [f"{region}{letter}" for letter, _ in letters_and_ids],
            "zone_ids": [id for _, id in letters_and_ids],
        }
    }


def groups(**sizes):
    """data.aws_eks_node_group.now, and what it is found by."""
    return {"aws_eks_node_group.now": {name: {"scaling_config": [{"desired_size": size}]} for name, size in sizes.items()}}


TOKYO = zones(("a", "apne1-az4"), ("c", "apne1-az1"), ("d", "apne1-az2"), region="ap-northeast-1")
VIRGINIA = zones(
    ("a", "use1-az6"), ("b", "use1-az1"), ("c", "use1-az3"), ("d", "use1-az2"), ("e", "use1-az4"), ("f", "use1-az5"), region="us-east-1"
)
# template, variables, answers of data sources, local, its value
COMPUTED = [
    ("vpc", {"name": "n1", "region": "ap-northeast-1"}, TOKYO, "chosen", ["a", "c", "d"]),
    ("vpc", {"name": "n1", "region": "ap-northeast-1"}, TOKYO, "place", {"ap-northeast-1a": 0, "ap-northeast-1c": 2, "ap-northeast-1d": 3}),
    ("vpc", {"name": "n1", "region": "us-east-1"}, VIRGINIA, "chosen", ["a", "b", "d"]),
    ("vpc", {"name": "n1", "region": "us-east-1", "zones": ["f", "c"]}, VIRGINIA, "zones", ["us-east-1c", "us-east-1f"]),
    ("rds-postgres", DATABASE, {}, "max_storage", 100),
    ("rds-postgres", DATABASE | {"storage_gib": 95}, {}, "max_storage", 190),
    ("rds-postgres", DATABASE | {"storage_gib": 65536}, {}, "max_storage", 0),
    ("rds-postgres", DATABASE | {"storage_gib": 200, "max_storage_gib": 0}, {}, "max_storage", 0),
    ("rds-postgres", DATABASE | {"storage_gib": 200, "max_storage_gib": 220}, {}, "max_storage", 220),
    (
        "eks-cluster",
        {"name": "c1", "region": "eu-central-1"} | IDS,
        {},
        "addons",
        {"vpc-cni": '{"enableNetworkPolicy":"true"}', "kube-proxy": None, "eks-pod-identity-agent": None},
    ),
    ("eks-node-group", NODES, groups(), "desired", 2),
    ("eks-node-group", NODES, groups(old=5), "desired", 5),
    ("eks-node-group", NODES | {"min_size": 4}, groups(old=2), "desired", 4),
    ("eks-node-group", NODES | {"max_size": 3}, groups(old=5), "desired", 3),
    ("eks-node-group", NODES | {"desired_size": 3}, groups(old=5), "desired", 3),
]
# Two sets of variables, and whether they share a node group: what EKS changes in place, and what it does not.
SAME_GROUP = [
    (NODES, NODES | {"subnet_ids": ["subnet-0a", "subnet-0b"]}, True),
    (NODES, NODES | {"min_size": 1, "max_size": 9, "disk_gib": 100, "labels": {"a": "b"}}, True),
    (NODES, NODES | {"capacity": "SPOT"}, False),
    (NODES, NODES | {"instance_types": ["m7g.xlarge"]}, False),
]
# template, variables, what Terraform says
REFUSED = [
    ("vpc", {"name": "n1", "region": "eu-central-1", "zones": ["a", "a"]}, "Must not have a letter twice"),
    ("rds-postgres", DATABASE | {"name": "a--b"}, "single hyphens"),
    ("rds-postgres", DATABASE | {"storage_gib": 100, "max_storage_gib": 100}, r"at least a tenth more than storage_gib \(110\)"),
    ("rds-postgres", DATABASE | {"engine_version": "14"}, "one of: 15, 16, 17, 18"),
    ("eks-cluster", DATABASE | {"private_access_cidrs": ["0.0.0.0/0"]}, "whole internet is not allowed"),
]
# A block of locals that has one of them.
WANTED = r"^  ({names})\s+="
# Path that a browser asks for, key that S3 is asked for.
PATHS = {
    "/": "/index.html",
    "/docs/": "/docs/index.html",
    "/docs/setup": "/docs/setup/index.html",
    "/main.css": "/main.css",
    "/v1.2/": "/v1.2/index.html",
    "/.well-known/apple-app-site-association": "/.well-known/apple-app-site-association",
}

problems = []


def terraform(place, *arguments):
    env = {"PATH": os.environ["PATH"], "HOME": place, "TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1"}
    done = subprocess.run([PROGRAM, *arguments], cwd=place, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stdout + done.stderr


def run(template, variables, answers, locals_):
    """The template's variables and the locals that an answer is wanted for, without its resources: exit code, outputs, stdout and stderr."""
    folder = TEMPLATES / template
    with tempfile.TemporaryDirectory() as place:
        to = pathlib.Path(place)
        shutil.copy(folder / "variables.tf", to)
        (to / "terraform.tfvars.json").write_text(json.dumps(variables))
        if locals_:
            source = "".join(file.read_text() for file in folder.glob("*.tf"))
            text = "".join(block for block in re.findall(r"^locals \{\n.*?^\}\n", source, re.M | re.S) if re.search(WANTED.format(names="|".join(locals_)), block, re.M))
            for source in answers:
                text = text.replace(f"data.{source}", f'local.answers["{source}"]')
            (to / "locals.tf").write_text(text)
            (to / "answers.tf.json").write_text(json.dumps({"locals": {"answers": answers}}))
            (to / "outputs.tf.json").write_text(json.dumps({"output": {name: {"value": f"${{local.{name}}}"} for name in locals_}}))
        terraform(place, "init", "-no-color")
        code, _, output = terraform(place, "apply", "-auto-approve", "-no-color", "-input=false")
        outputs = json.loads(terraform(place, "output", "-json")[1] or "{}") if code == 0 else {}
        return code, {name: output["value"] for name, output in outputs.items()}, output


def computed(template, variables, answers, name):
    code, outputs, output = run(template, variables, answers, [name])
    if code != 0:
        problems.append(f"{template}: {variables}: {output}")
    return outputs.get(name)


def site():
    """The function that CloudFront runs, by Node: the part of the language that both have."""
    if not shutil.which("node"):
        print("try-templates: node is not here; the static site's function is not tried", file=sys.stderr)
        return
    code = (TEMPLATES / "static-site" / "index.js").read_text()
    ask = f"{code}\nconsole.log(JSON.stringify({json.dumps(list(PATHS))}.map((uri) => handler({{ request: {{ uri }} }}).uri)))"
    output = subprocess.run(["node", "--eval", ask], capture_output=True, text=True, check=True).stdout
    for (path, key), got in zip(PATHS.items(), json.loads(output), strict=True):
        if got != key:
            problems.append(f"static-site: {path} is asked for as {got}, not {key}")


for template, variables, answers, name, value in COMPUTED:
    if (found := computed(template, variables, answers, name)) != value:
        problems.append(f"{template}: {variables}: local.{name} is {found}, not {value}")
for left, right, same in SAME_GROUP:
    names = [computed("eks-node-group", variables, groups(), "group_name") for variables in (left, right)]
    if (names[0] == names[1]) != same:
        problems.append(f"eks-node-group: the groups are {names} for {left} and {right}")
for template, variables, message in REFUSED:
    code, _, output = run(template, variables, {}, [])
    if code == 0 or not re.search(message, " ".join(output.replace("│", " ").split())):
        problems.append(f"{template}: {variables} is not refused with {message!r}: {output}")
site()
print("\n".join(problems) if problems else f"the templates compute what they should: {len(COMPUTED)} values, {len(REFUSED)} refusals, {len(PATHS)} paths")
sys.exit(bool(problems))
