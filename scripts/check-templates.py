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
    """A value that a constraint of the schema forbids; None when it has none."""
    if not constraints(schema):
        return None
    if schema["type"] == "array":
        return ["\n wrong"] * max(1, schema.get("minItems", 1))
    if schema["type"] == "integer":
        return min(schema.get("enum", [schema.get("minimum", 0)])) - 1
    return "\n wrong"


def plan(program, folder, values):
    """Terraform's word on values: its answer to a plan of the variables alone, which needs no provider."""
    with tempfile.TemporaryDirectory() as place:
        shutil.copy(folder / "variables.tf", place)
        (pathlib.Path(place) / "terraform.tfvars.json").write_text(json.dumps(values))
        env = {"PATH": os.environ["PATH"], "HOME": place, "TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1"}
        run = {"cwd": place, "env": env, "capture_output": True, "text": True}
        subprocess.run([program, "init", "-no-color"], check=True, **run)
        done = subprocess.run([program, "plan", "-no-color", "-input=false"], check=False, **run)
        return done.returncode, done.stdout + done.stderr


def try_rules(program, folder, properties, required):
    code, said = plan(program, folder, {name: example(properties[name]) for name in required})
    if code != 0:
        problem(folder.name, f"{program} refuses the examples:\n{said}")
    bad = {name: wrong(schema) for name, schema in properties.items()}
    bad = {name: value for name, value in bad.items() if value is not None}
    code, said = plan(program, folder, bad | {name: example(properties[name]) for name in required if name not in bad})
    for name in bad:
        if re.search(rf"var\.{name} (is|has) ", said):
            continue
        # A rule that looks at another variable is not tried while that one is wrong.
        alone = {other: example(properties[other]) for other in required} | {name: bad[name]}
        if not re.search(rf"var\.{name} (is|has) ", plan(program, folder, alone)[1]):
            problem(f"{folder.name}.{name}", f"{program} takes {bad[name]!r}")


folders = sorted(file.parent for file in TEMPLATES.glob("*/template.json"))
for folder in folders:
    properties, required = check(folder)
    if len(sys.argv) > 1:
        try_rules(sys.argv[1], folder, properties, required)
print("\n".join(problems) if problems else f"{len(folders)} templates agree with their template.json")
sys.exit(bool(problems))
