import assert from "node:assert/strict";
import { test } from "node:test";
import type { AttributeChange, Change, ChangeAction } from "../../contract/rows.ts";
import { isLong, planOf, progressOf, sideOf, signOf, textOf } from "../../plan/change.ts";
import { amount } from "../../plan/cost.ts";
import { diffLines, hunks } from "../../plan/diff.ts";
import { Narration, typeOf } from "../../plan/narration.ts";

const change = (position: number, action: ChangeAction, more: Partial<Change> = {}): Change => ({
  deployment_id: "d", attempt: 1, position, address: `a.${position}`, resource_type: "a", provider: null, action, drift: false,
  attributes: [], status: "PLANNED", started_at: null, seconds: null, error: null, ...more,
});

test("what destroys comes first, then in the plan's own order; drift and the marker stand apart", () => {
  const plan = planOf([change(1, "create"), change(2, "update"), change(3, "replace"), change(4, "delete"), change(5, "create"), change(6, "no-op", { drift: true }), change(5001, "truncated", { attributes: { omitted: 12 } }), change(9, "delete", { attempt: 2 })], 1);
  assert.deepEqual(plan.changes.map((row) => row.position), [4, 3, 1, 5, 2]);
  assert.deepEqual(plan.drift.map((row) => row.position), [6]);
  assert.deepEqual([plan.omitted, plan.destructive], [12, 2]);
});

test("an action of a later contract is shown by its own name", () => {
  assert.equal(signOf("teleport").word, "teleport");
  assert.deepEqual(planOf([change(1, "teleport" as ChangeAction), change(2, "create")], 1).changes.map((row) => row.position), [2, 1]);
});

test("a sensitive value is never shown, an unknown one is marked, none is none", () => {
  const sides = (attribute: AttributeChange): string[] => [sideOf(attribute, "before").kind, sideOf(attribute, "after").kind];
  assert.deepEqual(sides({ path: "p", before: "leak", after: "leak", sensitive: true }), ["masked", "masked"]);
  assert.deepEqual(sides({ path: "p", before: "a", unknown: true }), ["text", "unknown"]);
  assert.deepEqual(sides({ path: "p", before: null, after: false }), ["absent", "text"]);
  assert.deepEqual(sides({ path: "p", sensitive: true, unknown: true }), ["masked", "unknown"]);
});

test("a JSON document in a string is laid out, and long values are compared by lines", () => {
  assert.equal(textOf('{"a":1}'), '{\n  "a": 1\n}');
  assert.equal(textOf("{not json"), "{not json");
  assert.ok(isLong({ path: "p", before: '{"a":1}', after: '{"a":2}' }));
  assert.ok(!isLong({ path: "p", before: "t3.small", after: "t3.large" }));
});

test("progress counts what is work", () => {
  assert.deepEqual(progressOf([change(1, "create", { status: "DONE" }), change(2, "read", { status: "DONE" }), change(3, "delete", { status: "FAILED" }), change(4, "update", { status: "RUNNING" }), change(5, "create")]), { total: 4, done: 1, failed: 1, running: 1 });
});

test("a difference gives both texts back, and is as short as it can be", () => {
  let seed = 3;
  const next = (): number => (seed = (seed * 1103515245 + 12345) % 2147483648);
  for (let round = 0; round < 400; round++) {
    const a = Array.from({ length: next() % 14 }, () => "abcd"[next() % 4]!);
    const b = Array.from({ length: next() % 14 }, () => "abcd"[next() % 4]!);
    const lines = diffLines(a.join("\n"), b.join("\n"));
    const side = (other: string): string => lines.filter((line) => line.kind !== other).map((line) => line.text).join("\n");
    assert.equal(side("added"), a.join("\n"));
    assert.equal(side("removed"), b.join("\n"));
    // The longest common subsequence, the slow way.
    const [x, y] = [a.join("\n").split("\n"), b.join("\n").split("\n")];
    const table = Array.from({ length: x.length + 1 }, () => new Array<number>(y.length + 1).fill(0));
    for (let i = 1; i <= x.length; i++) for (let j = 1; j <= y.length; j++) table[i]![j] = x[i - 1] === y[j - 1] ? table[i - 1]![j - 1]! + 1 : Math.max(table[i - 1]![j]!, table[i]![j - 1]!);
    assert.equal(lines.filter((line) => line.kind === "same").length, table[x.length]![y.length]);
  }
});

test("long stretches that are the same are folded", () => {
  const before = Array.from({ length: 40 }, (_, i) => `line ${i}`);
  const after = before.with(20, "other");
  assert.deepEqual(hunks(diffLines(before.join("\n"), after.join("\n"))).map((line) => (line.kind === "skipped" ? line.n : line.kind)), [17, "same", "same", "same", "removed", "added", "same", "same", "same", 16]);
});

test("two huge texts that have nothing in common do not stop the page", () => {
  const began = performance.now();
  diffLines(Array.from({ length: 20_000 }, (_, i) => `a${i}`).join("\n"), Array.from({ length: 20_000 }, (_, i) => `b${i}`).join("\n"));
  assert.ok(performance.now() - began < 2000);
});

test("money is rounded on its digits; unknown is not nothing, and less than a cent is not free", () => {
  assert.deepEqual(["42.17", "0.005", "0.0000001", "0", "1234567.895", "12", null, "n/a"].map((text) => amount(text, "USD")), ["$42.17", "$0.01", "< $0.01", "$0.00", "$1,234,567.90", "$12.00", null, null]);
  assert.equal(amount("1", "JPY"), "JPY 1.00");
});

test("where no rows are written, the plan and its progress are read from Terraform's output", () => {
  const lines = [
    "terraform_data.a: Drift detected (update)",
    "terraform_data.a: Plan to create", 'module.m.terraform_data.b["x: y"]: Plan to replace', "terraform_data.c: Plan to delete",
    "terraform_data.a: Creating...", "terraform_data.a: Creation complete after 1m4s [id=1]",
    'module.m.terraform_data.b["x: y"]: Destroying... [id=2]', 'module.m.terraform_data.b["x: y"]: Destruction complete after 0s',
    "terraform_data.c: Destroying... [id=3]", "terraform_data.c: Destruction errored after 2s",
  ];
  const narration = new Narration("d", 1);
  assert.ok(narration.take(lines.length, (i) => ({ text: lines[i]!, time: 0 })));
  const rows = narration.rows();
  assert.deepEqual(rows.map((row) => [row.address, row.action, row.drift, row.status, row.seconds]), [
    ["terraform_data.a", "update", true, "PLANNED", null],
    ["terraform_data.a", "create", false, "DONE", 64],
    ['module.m.terraform_data.b["x: y"]', "replace", false, "RUNNING", null],
    ["terraform_data.c", "delete", false, "FAILED", 2],
  ]);
  assert.ok(!narration.take(lines.length, () => assert.fail("nothing is read twice")));
});

test("an address contains its type", () => {
  assert.deepEqual(["aws_vpc.main", 'module.a["x.y"].aws_subnet.b[0]', "data.aws_ami.c", "module.a.module.b.aws_vpc.c"].map(typeOf), ["aws_vpc", "aws_subnet", "aws_ami", "aws_vpc"]);
});
