"""Does each block of the templates name arguments that the AWS provider has, all that it demands, and attributes that it gives?

    .tools/bin/hcl-python scripts/check-provider.py .tools/npm/@cdktf/provider-aws-<version>/package

The provider's own schema comes with the provider, from Terraform's registry. Its last bindings for TypeScript are on npm: the names are
the same, so this runs where the registry cannot be reached. `terraform validate` knows more (types, nesting); CI runs that as well.
"""

import pathlib
import re
import sys

import hcl2

TEMPLATES = pathlib.Path(__file__).parent.parent / "templates"
BINDINGS = pathlib.Path(sys.argv[1]) / "lib"
# Terraform's own, in any block.
META = {"count", "for_each", "depends_on", "lifecycle", "provider", "provisioner", "connection"}

problems = []


def snake(name):
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


class Schema:
    """What the bindings say of a resource or data source."""

    def __init__(self, kind, type_):
        folder = ("data-" if kind == "data" else "") + type_.replace("_", "-").removeprefix("aws-" if kind == "resource" else "")
        text = (BINDINGS / folder / "index.d.ts").read_text()
        # Of all depths: which block has which argument is terraform's to say.
        self.arguments = set(re.findall(r"docs/(?:resources|data-sources)/\w+#(\w+)", text))
        config = text.partition("Config extends cdktf.TerraformMetaArguments {")[2].partition("\n}")[0]
        # The generator cuts digits off a name in its comments (ipv6_…), and not in the property.
        self.arguments |= {snake(name) for name in re.findall(r"readonly (\w+)\??:", text)}
        self.required = {snake(name) for name in re.findall(r"readonly (\w+):", config)}
        self.attributes = self.arguments | {snake(name) for name in re.findall(r"get (\w+)\(\)", text)}


def bare(name):
    return name.strip('"')


def names(body):
    """All arguments and blocks below a block, `dynamic` ones by what they stand for."""
    for name, value in body.items():
        if name.startswith("__") or name in META:
            continue
        if name == "dynamic":
            for block in value:
                for stands_for, inner in block.items():
                    if not stands_for.startswith("__"):
                        yield bare(stands_for)
                        for content in inner.get("content", []):
                            yield from names(content)
            continue
        yield name
        for inner in value if isinstance(value, list) else []:
            if isinstance(inner, dict):
                yield from names(inner)


def blocks(folder):
    for file in sorted(folder.glob("*.tf")):
        document = hcl2.loads(file.read_text())
        for kind in ("resource", "data"):
            for block in document.get(kind, []):
                for type_, named in block.items():
                    for name, body in named.items():
                        if not name.startswith("__"):
                            yield kind, bare(type_), bare(name), body


def check(folder):
    schemas, declared = {}, set()
    count = 0
    for kind, type_, name, body in blocks(folder):
        if not type_.startswith("aws_"):
            continue
        where = f"{folder.name}: {kind} {type_}.{name}"
        declared.add((kind, type_, name))
        try:
            schema = schemas.setdefault((kind, type_), Schema(kind, type_))
        except FileNotFoundError:
            problems.append(f"{where}: the provider has no such {kind}")
            continue
        count += 1
        for unknown in sorted(set(names(body)) - schema.arguments):
            problems.append(f"{where}: the provider has no argument {unknown}")
        given = {bare(key) for key in body} | {bare(key) for block in body.get("dynamic", []) for key in block}
        for missing in sorted(schema.required - given):
            problems.append(f"{where}: {missing} is missing")
    text = "\n".join(file.read_text() for file in folder.glob("*.tf"))
    for data, type_, name in re.findall(r"(?<![\w.])(data\.)?(aws_\w+)\.(\w+)", text):
        if ("data" if data else "resource", type_, name) not in declared:
            problems.append(f"{folder.name}: there is no {data}{type_}.{name}")
    for data, type_, attribute in re.findall(r"(?<![\w.])(data\.)?(aws_\w+)\.\w+(?:\[[^]]*\])?\.(\w+)", text):
        schema = schemas.get(("data" if data else "resource", type_))
        if schema and attribute not in schema.attributes:
            problems.append(f"{folder.name}: {data}{type_} gives no {attribute}")
    return count


total = sum(check(file.parent) for file in sorted(TEMPLATES.glob("*/providers.tf")))
print("\n".join(problems) if problems else f"{total} blocks of the templates agree with the AWS provider")
sys.exit(bool(problems) or total == 0)
