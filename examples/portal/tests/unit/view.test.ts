import assert from "node:assert/strict";
import { test } from "node:test";
import type { LogChunk } from "../../contract/rows.ts";
import { LogStore } from "../../log/store.ts";
import { LogView } from "../../log/view.ts";

let seq = 0;
const write = (store: LogStore, stream: LogChunk["stream"], ...texts: string[]): void => {
  seq = store.wanted;
  store.add([{ attempt: 1, seq, stream, log_chunk: texts.map((text) => `${text}\n`).join(""), ts: `2026-01-01T00:00:${String(seq).padStart(2, "0")}Z` }]);
};
/** What is on the screen: headers in brackets. */
const screen = (view: LogView, store: LogStore): string[] =>
  view.rows.map((row) => {
    if (row >= 0) return store.texts[row]!;
    const mark = view.marks[-1 - row]!;
    return mark.kind === "section" ? `[${view.sections[mark.section]!.title}]` : mark.kind === "refresh" ? `(${mark.last - mark.first + 1})` : "!";
  });

function run(): LogStore {
  const store = new LogStore();
  write(store, "agent", "Attempt 1 on agent a with terraform 1.11.4.");
  write(store, "agent", "terraform init");
  write(store, "stdout", "Initializing...");
  write(store, "agent", "terraform plan");
  write(store, "stdout", "a: Refreshing state... [id=1]", "b: Refreshing state... [id=2]", "c: Reading...", "c: Read complete after 0s", "Plan: 1 to add");
  write(store, "agent", "terraform apply");
  write(store, "stdout", "a: Creating...");
  return store;
}

test("a log is divided by phase; short preparations are folded, refreshes too", () => {
  const store = run();
  const view = new LogView(store);
  assert.deepEqual(screen(view, store), ["[Prepare]", "[Initialize]", "[Plan]", "terraform plan", "(4)", "Plan: 1 to add", "[Apply]", "terraform apply", "a: Creating..."]);
});

test("lines that come one by one make the same screen as all at once", () => {
  const all = run();
  const store = new LogStore();
  const view = new LogView(store);
  for (let i = 0; i < all.length; i++) {
    write(store, all.stream(i), all.texts[i]!);
    view.extend();
  }
  assert.deepEqual(screen(view, store), screen(new LogView(all), all));
});

test("of a failed run the last phase is open, and the others are folded but plan and apply", () => {
  const store = new LogStore();
  write(store, "agent", "Attempt 1");
  write(store, "agent", "terraform init");
  write(store, "stdout", "Error: no such provider");
  const view = new LogView(store, { columns: null, failed: true });
  assert.deepEqual(screen(view, store), ["[Prepare]", "[Initialize]", "terraform init", "Error: no such provider"]);
});

test("a line that is folded away is revealed, inside a run too", () => {
  const store = run();
  const view = new LogView(store);
  assert.equal(view.rowOf(2), -1);
  const row = view.reveal(2);
  assert.equal(screen(view, store)[row], "Initializing...");
  const inRun = view.reveal(store.texts.indexOf("c: Reading..."));
  assert.equal(screen(view, store)[inRun], "c: Reading...");
  assert.equal(view.reveal(9999), -1);
});

test("what a reader folds stays folded while lines come", () => {
  const store = run();
  const view = new LogView(store);
  view.toggle(3);
  write(store, "stdout", "more");
  view.extend();
  assert.deepEqual(screen(view, store).slice(-1), ["[Apply]"]);
});

test("a long line takes as many rows as it needs, and each row finds its line", () => {
  const store = new LogStore();
  write(store, "stdout", "x".repeat(25), "y");
  const view = new LogView(store, { columns: 10, failed: false });
  assert.deepEqual([...view.rows], [-1, 0, 0, 0, 1]);
  assert.deepEqual([...view.parts], [0, 0, 1, 2, 0]);
  assert.equal(view.rowOf(0), 1);
  assert.equal(view.rowOf(1), 4);
});

test("each line's row is found among many marks and parts", () => {
  const store = new LogStore();
  for (let i = 0; i < 60; i++) write(store, i % 7 === 0 ? "agent" : "stdout", i % 7 === 0 ? "terraform apply" : "z".repeat((i * 13) % 50));
  const view = new LogView(store, { columns: 12, failed: false });
  view.foldAll(true);
  for (let line = 0; line < store.length; line++) {
    const row = view.rowOf(line);
    assert.equal(view.rows[row], line);
    assert.equal(view.parts[row], 0);
  }
});

test("a hole has a row where its lines would be, at the end too", () => {
  const store = new LogStore();
  write(store, "stdout", "one");
  store.add([{ attempt: 1, seq: 3, stream: "stdout", log_chunk: "three\n", ts: "2026-01-01T00:00:00Z" }]);
  store.giveUp();
  const view = new LogView(store);
  store.endAt(5);
  view.extend();
  assert.deepEqual(screen(view, store), ["[Prepare]", "one", "!", "three", "!"]);
});

test("100,000 lines are laid out within a frame or two", () => {
  const store = new LogStore();
  write(store, "agent", "terraform apply");
  for (let i = 0; i < 100; i++) write(store, "stdout", ...Array.from({ length: 1000 }, (_, n) => `line ${n}`));
  const began = performance.now();
  const view = new LogView(store);
  view.foldAll(true);
  assert.equal(view.rows.length, 100_002);
  // Far above what it takes, so that a busy machine does not fail it; a quadratic layout would take minutes.
  assert.ok(performance.now() - began < 2000);
});
