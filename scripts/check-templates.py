"""Do a template's two halves say the same? `template.json`, from which a form is drawn, and the `variable` blocks, which
Terraform enforces. Also what every template keeps to: see templates/README.md.

Runs with python-hcl2 (.tools/bin/hcl-python). With a program as its argument (terraform or tofu) the validation rules are also
tried: what the schema takes by example passes them, and a wrong value for each variable is refused by name.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import hcl2

TEMPLATES = pathlib.Path(__file__).parent.parent / "templates"
TYPES = {
    "string": "string",
    "number": ("integer", "number"),
    "bool": "boolean",
    "list(string)": "array",
    "map(string)": "object",
}
# What the agent's own check of variables understands, and what only a form reads.
ENFORCED = {"type", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "items"}
ENFORCED |= {"properties", "required", "additionalProperties", "sensitive"}
SHOWN = {"title", "description", "default", "examples"}

# Arguments that a README's promise hangs on, and that nothing else here would miss: template, resource, argument, value.
PROMISES = [
    ("eks-cluster", "aws_eks_addon", "addon_version", "data.aws_eks_addon_version.this[each.key].version"),
    ("eks-cluster", "aws_eks_cluster", "security_group_ids", "aws_security_group.api.id"),
    ("eks-cluster", "aws_iam_role", "force_detach_policies", True),
    ("eks-addons", "aws_eks_addon", "service_account", "ebs-csi-controller-sa"),
    ("eks-addons", "aws_eks_addon", "preserve", True),
    ("eks-node-group", "aws_eks_node_group", "version", "data.aws_eks_cluster.this.version"),
    ("eks-node-group", "aws_eks_node_group", "release_version", "nonsensitive(data.aws_ssm_parameter.release.value)"),
    ("eks-node-group", "aws_eks_node_group", "create_before_destroy", True),
    ("eks-node-group", "aws_eks_node_group", "desired_size", "local.desired"),
    ("rds-postgres", "aws_db_parameter_group", "skip_destroy", True),
    ("rds-postgres", "aws_db_instance", "apply_immediately", "var.apply_immediately"),
    ("rds-postgres", "aws_db_instance", "max_allocated_storage", "local.max_storage"),
    ("rds-postgres", "aws_db_instance", "engine_lifecycle_support", "open-source-rds-extended-support-disabled"),
    ("static-site", "aws_cloudfront_distribution", "event_type", "viewer-request"),
    ("static-site", "aws_cloudfront_response_headers_policy", "include_subdomains", "var.hsts_subdomains"),
]

problems = []


def problem(where, text):
    problems.append(f"{where}: {text}")


def plain(value):
    """A value of the parser as JSON would have it: strings without their quotes."""
    if isinstance(value, str):
        if value.startswith('"'):
            return json.loads(value)
        return value[2:-1] if value.startswith("${") else value
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items() if not key.startswith("__")}
    return value


def blocks(folder, kind):
    """All blocks of a kind in a folder: name -> body, as the parser gives it."""
    found = {}
    for file in sorted(folder.glob("*.tf")):
        for block in hcl2.loads(file.read_text()).get(kind, []):
            found.update({plain(name): body for name, body in block.items() if not name.startswith("__")})
    return found


def compare(where, schema, block, required):
    """One variable: its schema and its block."""
    if plain(block.get("description")) != schema.get("description"):
        problem(where, "the descriptions differ")
    expected = TYPES.get(plain(block.get("type")))
    if expected is None or schema.get("type") not in (expected if isinstance(expected, tuple) else (expected,)):
        problem(where, f"type {plain(block.get('type'))} is not {schema.get('type')}")
    for keyword in schema.keys() - ENFORCED - SHOWN:
        problem(where, f"the agent does not know the keyword {keyword}")
    if "title" not in schema:
        problem(where, "it has no title")

    if required != ("default" not in block):
        problem(where, "required in one of the two only")
    default = plain(block.get("default"))
    if not required and default != schema.get("default"):
        problem(where, f"the defaults differ: {default!r}, {schema.get('default')!r}")
    if bool(plain(block.get("sensitive"))) != bool(schema.get("sensitive")):
        problem(where, "sensitive in one of the two only")

    conditions = "\n".join(plain(rule["condition"]) for rule in block.get("validation", []))
    rules = constraints(schema)
    for rule in rules:
        if rule not in conditions:
            problem(where, f"no validation has {rule}")
    if conditions and not rules:
        problem(where, "validated by Terraform alone")


def arguments(body):
    """All arguments below a block, of whatever depth, as they are written; each item of a list by itself."""
    for name, value in body.items():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from arguments(inner)
            else:
                yield name, inner.removeprefix("${").removesuffix("}").strip('"') if isinstance(inner, str) else inner


def keep_promises(folder):
    found = []
    for file in folder.glob("*.tf"):
        for block in hcl2.loads(file.read_text()).get("resource", []):
            for type_, named in block.items():
                found += [(plain(type_), name, value) for name, value in arguments(named)]
    for template, type_, name, value in PROMISES:
        if template == folder.name and not any(item == (type_, name, value) for item in found):
            problem(folder.name, f"no {type_} has {name} = {value}")


def constraints(schema):
    """How each constraint of a schema is written in a condition."""
    rules = []
    for part in (schema, schema.get("items", {})):
        if "pattern" in part:
            rules.append(json.dumps(part["pattern"], ensure_ascii=False))
        if "enum" in part:
            rules.append(json.dumps(part["enum"], ensure_ascii=False))
    for keyword, sign in {"minimum": ">=", "maximum": "<=", "minItems": ">=", "maxItems": "<="}.items():
        if keyword in schema:
            rules.append(f"{sign} {schema[keyword]}")
    if "maxLength" in schema:
        rules.append(f"{{{schema.get('minLength', 0)},{schema['maxLength']}}}")
    return rules


def check(folder):
    name = folder.name
    manifest = json.loads((folder / "template.json").read_text())
    schema = manifest.get("variables", {})
    if set(manifest) != {"title", "description", "variables"}:
        problem(name, "template.json has title, description and variables, nothing else")
    if schema.get("type") != "object" or schema.get("additionalProperties") is not False:
        problem(name, 'variables must be of type object, with "additionalProperties": false')

    variables = blocks(folder, "variable")
    properties = schema.get("properties", {})
    for extra in variables.keys() ^ properties.keys():
        problem(f"{name}.{extra}", "is in one of the two only")
    for variable in variables.keys() & properties.keys():
        required = variable in schema.get("required", [])
        compare(f"{name}.{variable}", properties[variable], variables[variable], required)

    for output, body in blocks(folder, "output").items():
        if not plain(body.get("description")):
            problem(f"{name}.{output}", "the output has no description")
    text = "\n".join(file.read_text() for file in folder.glob("*.tf"))
    for version in re.findall(r'version\s*= "([^"]*)"', text.partition("required_providers")[2].partition("\n}")[0]):
        if "<" not in version and "~>" not in version:
            problem(name, f"the provider's version {version} has no upper limit")
    if re.search(r"^\s*backend\s", text, re.M):
        problem(name, "the agent writes the backend")
    keep_promises(folder)
    if not (folder / "README.md").is_file():
        problem(name, "it has no README.md")
    if f"({name}/README.md)" not in (TEMPLATES / "README.md").read_text():
        problem(name, "it is not in the table of templates/README.md")
    return properties, schema.get("required", [])


def example(schema):
    if "examples" in schema:
        return schema["examples"][0]
    return {"string": "example", "integer": schema.get("minimum", 1), "boolean": True, "array": [], "object": {}}[schema["type"]]


def wrong(schema):
    """Values that constraints of the schema forbid, each another one."""
    if not constraints(schema):
        return []
    if schema["type"] == "array":
        few, many = schema.get("minItems", 0), schema.get("maxItems")
        right = schema.get("examples", [schema.get("default")])[0] or []
        values = [["\n wrong"] * max(1, few)]
        if right and few > 1:
            values.append(right[:1])
        if right and many:
            values.append((right * (many + 1))[: many + 1])
        return values
    if schema["type"] == "integer":
        allowed = schema.get("enum", [schema.get("minimum", 0), schema.get("maximum")])
        return [min(allowed) - 1, max(allowed) + 1, allowed[0] + 0.5]
    values = ["\n wrong"]
    if "maxLength" in schema:
        values.append("x" * (schema["maxLength"] + 1))
    return values


def plan(program, folder, values):
    """Terraform's opinion of values: its answer to a plan of the variables alone, which needs no provider."""
    with tempfile.TemporaryDirectory() as place:
        shutil.copy(folder / "variables.tf", place)
        (pathlib.Path(place) / "terraform.tfvars.json").write_text(json.dumps(values))
        env = {"PATH": os.environ["PATH"], "HOME": place, "TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1"}
        run = {"cwd": place, "env": env, "capture_output": True, "text": True}
        subprocess.run([program, "init", "-no-color"], check=True, **run)
        done = subprocess.run([program, "plan", "-no-color", "-input=false"], check=False, **run)
        return done.returncode, done.stdout + done.stderr


def try_rules(program, folder, properties, required):
    code, output = plan(program, folder, {name: example(properties[name]) for name in required})
    if code != 0:
        problem(folder.name, f"{program} refuses the examples:\n{output}")
    wrongs = {name: wrong(schema) for name, schema in properties.items()}
    for turn in range(max(len(values) for values in wrongs.values())):
        bad = {name: values[turn] for name, values in wrongs.items() if turn < len(values)}
        refuse(program, folder, bad, {name: example(properties[name]) for name in required})


def refuse(program, folder, bad, right):
    _, output = plan(program, folder, right | bad)
    for name, value in bad.items():
        # A rule that looks at another variable is not tried while that one is wrong.
        if not refused(name, output) and not refused(name, plan(program, folder, right | {name: value})[1]):
            problem(f"{folder.name}.{name}", f"{program} takes {value!r}")


def refused(name, output):
    return re.search(rf"var\.{name} (is|has) ", output)


folders = sorted(file.parent for file in TEMPLATES.glob("*/template.json"))
for folder in folders:
    properties, required = check(folder)
    if len(sys.argv) > 1:
        try_rules(sys.argv[1], folder, properties, required)
print("\n".join(problems) if problems else f"{len(folders)} templates agree with their template.json")
sys.exit(bool(problems))
