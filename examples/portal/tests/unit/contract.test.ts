import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { counts, label, subject, waitsForApproval } from "../../contract/deployment.ts";
import { dockerLines, helmLines, quoted } from "../../contract/install.ts";
import { problem } from "../../contract/problem.ts";
import * as rows from "../../contract/rows.ts";

const base = { status: "PROCESSING" as const, phase: "APPROVAL", approved_plan: null, plan_sha256: "a".repeat(64), cancel_requested_at: null, error_code: null };

test("a deployment's one label shows what a person must know", () => {
  assert.equal(label(base).text, "Needs approval");
  assert.equal(label({ ...base, approved_plan: base.plan_sha256 }).text, "Approved");
  assert.equal(label({ ...base, cancel_requested_at: "2026" }).text, "Cancelling");
  assert.equal(label({ ...base, phase: "UNKNOWN", cancel_requested_at: "2026" }).text, "Agent silent");
  assert.equal(label({ ...base, status: "FAILED", error_code: "AGENT_LOST" }).text, "Agent lost");
  // A phase of a later contract is shown as it is.
  assert.equal(label({ ...base, phase: "VERIFY" }).text, "VERIFY");
});

test("only a plan that is there, open and not being cancelled waits for approval", () => {
  assert.ok(waitsForApproval(base));
  for (const other of [{ approved_plan: base.plan_sha256 }, { plan_sha256: null }, { cancel_requested_at: "2026" }, { phase: "APPLY" }, { status: "SUCCESS" as const }]) assert.ok(!waitsForApproval({ ...base, ...other }));
});

test("a subject is the template's name, or the folder of a repository", () => {
  assert.equal(subject({ template: "vpc" }), "vpc");
  assert.equal(subject({ source: { git: "https://example.com/acme/infra.git", path: "net" } }), "infra/net");
  assert.equal(subject({ source: { git: "https://example.com/acme/infra/" } }), "infra");
  assert.deepEqual(counts({ add: 1, change: 0, remove: 3 }).map(({ sign, n }) => sign + n), ["+1", "−3"]);
});

test("every error code of the rules has a sentence and an advice", () => {
  const sql = readdirSync(path.resolve(import.meta.dirname, "../../../../supabase/migrations")).map((name) => readFileSync(path.resolve(import.meta.dirname, "../../../../supabase/migrations", name), "utf8")).join("\n");
  const codes = new Set(sql.match(/TD0\d\d/g));
  assert.ok(codes.size >= 9);
  for (const code of codes) {
    const { title, advice } = problem({ code, message: "the rule's own sentence", hint: "do that" }, "this cluster");
    assert.ok(title.length > 10 && /[.!?]$/.test(title), `${code}: ${title}`);
    assert.ok(advice.length > 5, code);
  }
});

test("the columns that the portal reads are those that a user may read", () => {
  const sql = readdirSync(path.resolve(import.meta.dirname, "../../../../supabase/migrations")).map((name) => readFileSync(path.resolve(import.meta.dirname, "../../../../supabase/migrations", name), "utf8")).join("\n");
  for (const column of [rows.DEPLOYMENT_COLUMNS, rows.CLUSTER_COLUMNS, rows.STACK_COLUMNS, rows.CHANGE_COLUMNS].join(",").split(",")) assert.ok(sql.includes(column), column);
  assert.ok(!/claim_token|api_key/.test([rows.DEPLOYMENT_COLUMNS, rows.CLUSTER_COLUMNS].join()));
  assert.ok(!rows.DEPLOYMENT_LIST_COLUMNS.split(",").includes("outputs") && rows.DEPLOYMENT_LIST_COLUMNS.split(",").includes("cost_status"));
});

test("an ended session, a dead network and another user's row are distinguished", () => {
  assert.equal(problem({ code: "PGRST303", message: "JWT expired" }).kind, "session");
  assert.equal(problem({ message: "TypeError: Failed to fetch" }).kind, "offline");
  assert.equal(problem({ code: "42501", message: "new row violates row-level security policy" }).kind, "refused");
  assert.equal(problem({ code: "PGRST116" }, "deployment").title, "There is no such deployment.");
  assert.equal(problem({ code: "23514", message: 'new row violates check constraint "clusters_name_length"' }).title, "A cluster's name has 1 to 100 characters.");
});

test("nothing that is pasted into a shell is run by it", () => {
  assert.equal(quoted("tdl_abc"), "tdl_abc");
  assert.equal(quoted("a'; rm -rf $HOME #"), `'a'\\''; rm -rf $HOME #'`);
  const project = { url: "http://127.0.0.1:1", key: "k" };
  assert.match(helmLines(project, "tdl_x"), /helm install .*\n.*existingSecret=tendril-agent/);
  assert.match(dockerLines(project, "tdl_x"), /TENDRIL_AGENT_TOKEN=tdl_x/);
});

test("contract, forms, plan and log are plain modules: they import no framework, and each other in one direction", () => {
  const root = path.resolve(import.meta.dirname, "../..");
  const order = ["contract", "form", "plan", "log"];
  for (const folder of order) {
    for (const name of readdirSync(path.join(root, folder))) {
      const text = readFileSync(path.join(root, folder, name), "utf8");
      for (const [, from] of text.matchAll(/^(?:import|export)[^;]*from "([^"]+)";/gm)) {
        assert.match(from!, /^\.\.?\//, `${folder}/${name} imports ${from}`);
        const other = from!.startsWith("./") ? folder : from!.split("/")[1]!;
        assert.ok(other === folder || other === "contract", `${folder}/${name} imports ${from}`);
      }
    }
  }
});
