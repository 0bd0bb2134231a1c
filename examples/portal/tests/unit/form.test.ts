import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { draftsOf, read, sourceFaults, stackFault, type Drafts } from "../../form/draft.ts";
import { faults } from "../../form/rule.ts";
import { fields, readSchema, type Field, type Schema } from "../../form/schema.ts";
import { hideSecrets, MASK } from "../../form/secret.ts";

const form = (properties: { [name: string]: Schema }, required: string[] = []): Field[] => fields({ type: "object", properties, required });
const one = (schema: Schema, draft: Drafts[string], required = false): ReturnType<typeof read> => read(form({ x: schema }, required ? ["x"] : []), { x: draft });
const messages = (schema: Schema, draft: Drafts[string], required = false): string[] => one(schema, draft, required).faults.map((fault) => `${fault.path}: ${fault.message}`);

test("each keyword has its sentence", () => {
  const text: Schema = { type: "string" };
  assert.deepEqual(messages(text, "", true), ["x: Is required."]);
  assert.deepEqual(messages({ ...text, minLength: 3 }, "ab"), ["x: Must have at least 3 characters."]);
  assert.deepEqual(messages({ ...text, maxLength: 1 }, "😀😀"), ["x: Must have at most 1 character; it has 2."]);
  assert.deepEqual(messages({ ...text, pattern: "^a+$" }, "b"), ["x: Must match ^a+$"]);
  assert.deepEqual(messages({ type: "integer" }, "1.5"), ["x: Must be a whole number."]);
  assert.deepEqual(messages({ type: "number" }, "12a"), ["x: Must be a number."]);
  assert.deepEqual(messages({ type: "integer", minimum: 1, maximum: 5 }, "9"), ["x: Must be from 1 to 5."]);
  assert.deepEqual(messages({ type: "integer", minimum: 1 }, "0"), ["x: Must be at least 1."]);
  assert.deepEqual(messages({ type: "integer", maximum: 1 }, "2"), ["x: Must be at most 1."]);
  assert.deepEqual(messages({ type: "string", enum: ["a", "b"] }, "c"), ['x: Must be one of "a", "b".']);
  assert.deepEqual(messages({ type: "array", items: text, minItems: 2 }, ["a"]), ["x: Must have at least 2 items."]);
  assert.deepEqual(messages({ type: "array", items: { type: "string", pattern: "^s" }, maxItems: 1 }, ["s", "t"]), ["x: Must have at most 1 item; it has 2.", "x[1]: Must match ^s"]);
  assert.deepEqual(messages({ type: "object", additionalProperties: { type: "string", maxLength: 1 } }, [["k", "vv"]]), ["x.k: Must have at most 1 character; it has 2."]);
  assert.deepEqual(messages({ type: "object", additionalProperties: text }, [["k", "1"], ["k", "2"]]), ["x: k is there twice."]);
  assert.deepEqual(messages({ type: "array", items: { type: "object" } }, "[{"), ['x: Must be JSON, such as ["a", "b"] or {"name": "value"}.']);
});

test("the agent's further keywords have theirs, too", () => {
  assert.deepEqual(messages({ const: "a" }, '"b"'), ['x: Must be "a".']);
  assert.deepEqual(messages({ type: "number", exclusiveMinimum: 0 }, "0"), ["x: Must be more than 0."]);
  assert.deepEqual(messages({ type: "number", exclusiveMaximum: 5 }, "5.0"), ["x: Must be less than 5."]);
  assert.deepEqual(messages({ type: "number", multipleOf: 0.1 }, "0.25"), ["x: Must be a multiple of 0.1."]);
  assert.deepEqual(messages({ type: "number", multipleOf: 0.1 }, "0.7"), []);
  assert.deepEqual(messages({ type: "array", items: { type: "string" }, uniqueItems: true }, ["a", "a"]), ["x: Must not have the same item twice."]);
  assert.deepEqual(messages({ type: "object", additionalProperties: { type: "string" }, minProperties: 2 }, [["a", "1"]]), ["x: Must have at least 2 entries."]);
  assert.deepEqual(messages({ type: "integer" }, "9007199254740993"), ["x: Has more digits than a browser can store."]);
  const formats: [string, string, string][] = [
    ["ipv4", "10.0.0.1", "10.0.0.256"], ["ipv6", "fe80::1", "fe80::1::2"], ["uuid", "32f96684-060d-4f2c-b801-156b64639fba", "32f96684"], ["uri", "https://a.example/b", "/b"],
    ["date", "2028-02-29", "2026-02-30"], ["date-time", "2026-01-31T12:00:00Z", "2026-01-31"], ["email", "a@b.example", "a@-b"], ["hostname", "a-1.example", "a_1.example"],
  ];
  for (const [format, good, bad] of formats) {
    assert.deepEqual(messages({ type: "string", format }, good), [], format);
    assert.match(messages({ type: "string", format }, bad)[0] ?? "", /^x: Must be an? /, format);
  }
  assert.deepEqual(messages({ type: "string", format: "color" }, "any"), []);
});

test("values have the types of the template's variables", () => {
  assert.deepEqual(one({ type: "integer" }, " 42 ").values, { x: 42 });
  assert.deepEqual(one({ type: "number" }, "-1.5e3").values, { x: -1500 });
  assert.deepEqual(one({ type: "integer", enum: [30, 90] }, "90").values, { x: 90 });
  assert.deepEqual(one({ type: "boolean" }, false).values, { x: false });
  assert.deepEqual(one({ type: "array", items: { type: "integer" } }, ["1", " 2 ", ""]).values, { x: [1, 2] });
  assert.deepEqual(one({ type: "array", items: { type: "string" } }, ["1"]).values, { x: ["1"] });
  assert.deepEqual(one({ type: "string" }, "007").values, { x: "007" });
});

test("what is optional and empty is left out; an empty list is sent where the default is another", () => {
  assert.deepEqual(one({ type: "string" }, "").values, {});
  assert.deepEqual(one({ type: "boolean" }, null).values, {});
  assert.deepEqual(one({ type: "array", items: { type: "string" } }, []).values, {});
  assert.deepEqual(one({ type: "array", items: { type: "string" }, default: ["a"] }, []).values, { x: [] });
});

test("a nested object is a group with its own rules", () => {
  const group = form({ net: { type: "object", properties: { cidr: { type: "string", pattern: "/" }, name: { type: "string" } }, required: ["cidr"] } });
  assert.equal(group[0]!.widget, "group");
  assert.deepEqual(read(group, { net: { cidr: "", name: "" } }), { values: {}, faults: [] });
  assert.deepEqual(read(group, { net: { cidr: "", name: "a" } }).faults, [{ path: "net.cidr", message: "Is required." }]);
  assert.deepEqual(read(group, { net: { cidr: "1/2", name: "" } }).values, { net: { cidr: "1/2" } });
});

test("a form is prefilled from an earlier run, but for its secrets", () => {
  const all = form({ a: { type: "string", default: "d" }, n: { type: "integer" }, secret: { type: "string", sensitive: true, default: "never" }, w: { type: "string", writeOnly: true } });
  assert.deepEqual(draftsOf(all, { n: 3, secret: "s", w: "s" }), { a: "d", n: "3", secret: "", w: "" });
});

test("names of JavaScript's own are names like others", () => {
  const properties = JSON.parse('{"constructor": {"type": "string"}, "__proto__": {"type": "string"}}') as { [name: string]: Schema };
  assert.deepEqual(form(properties, ["constructor"]).map((field) => field.name), ["constructor", "__proto__"]);
  assert.deepEqual(faults({ type: "object", properties: {} }, JSON.parse('{"constructor": 1}'), "").map((fault) => fault.path), ["constructor"]);
});

test("a catalogue that is nonsense is a sentence, not a crash", () => {
  for (const nonsense of [3, "x", [], { properties: 3 }, { properties: { a: 3 } }]) assert.equal(typeof readSchema(nonsense), "string", JSON.stringify(nonsense));
  assert.deepEqual(readSchema(null), { type: "object", properties: {} });
  // A pattern that JavaScript cannot read is left to the agent.
  assert.deepEqual(faults({ type: "string", pattern: "(" }, "x", "x"), []);
});

test("every template of this repository is a form, and its own examples and defaults fit it", () => {
  const root = path.resolve(import.meta.dirname, "../../../../templates");
  const names = readdirSync(root, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  assert.ok(names.length >= 8);
  for (const name of names) {
    const schema = readSchema(JSON.parse(readFileSync(path.join(root, name, "template.json"), "utf8")).variables);
    assert.ok(typeof schema === "object", name);
    const all = fields(schema);
    assert.ok(all.every((field) => field.widget !== "json"), `${name}: each variable has a widget of its own`);
    const examples = Object.fromEntries(all.flatMap((field) => (field.schema.examples ? [[field.name, field.schema.examples[0]!]] : [])));
    const reading = read(all, draftsOf(all, examples));
    const missing = all.filter((field) => field.required && !field.schema.examples).map((field) => field.path);
    assert.deepEqual(reading.faults.filter((fault) => !missing.includes(fault.path)), [], name);
  }
});

test("stacks and sources are judged as the agent does", () => {
  assert.equal(stackFault("prod.eu-1"), null);
  for (const bad of ["", "-a", "a b", "a/b", "x".repeat(64)]) assert.ok(stackFault(bad), bad);
  assert.deepEqual(sourceFaults({ git: "https://example.com/a.git", ref: "v1", path: "a/b" }), []);
  assert.equal(sourceFaults({ git: "http://example.com/a.git", ref: "-x", path: "../a" }).length, 3);
  assert.match(sourceFaults({ git: "https://user:pass@example.com/a", ref: "", path: "" })[0]!.message, /credentials/);
});

test("secrets are not shown again, wherever they are", () => {
  const schema: Schema = { properties: { pin: { type: "string", sensitive: true }, net: { type: "object", properties: { psk: { type: "string", writeOnly: true } } } } };
  assert.deepEqual(hideSecrets({ pin: "1", net: { psk: "2", cidr: "3" } }, schema), { pin: MASK, net: { psk: MASK, cidr: "3" } });
  assert.deepEqual(hideSecrets({ db_password: "1", name: "2" }, null), { db_password: MASK, name: "2" });
});
