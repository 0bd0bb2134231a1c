import assert from "node:assert/strict";
import { test } from "node:test";
import type { LogChunk } from "../../contract/rows.ts";
import { LogStore } from "../../log/store.ts";
import { toText } from "../../log/text.ts";

const chunk = (seq: number, text = `line ${seq}\n`): LogChunk => ({ attempt: 1, seq, stream: "stdout", log_chunk: text, ts: `2026-01-01T00:00:${String(seq % 60).padStart(2, "0")}Z` });

test("lines come in the order of seq, whatever order the chunks come in, and each once", () => {
  let seed = 11;
  const next = (): number => (seed = (seed * 1103515245 + 12345) % 2147483648);
  for (let round = 0; round < 200; round++) {
    const n = 1 + (next() % 30);
    const order = Array.from({ length: n }, (_, i) => i + 1).flatMap((seq) => (next() % 3 === 0 ? [seq, seq] : [seq])).sort(() => (next() % 2 === 0 ? 1 : -1));
    const store = new LogStore();
    for (const seq of order) store.add([chunk(seq)]);
    assert.deepEqual(store.texts, Array.from({ length: n }, (_, i) => `line ${i + 1}`));
    assert.deepEqual(store.gaps(), []);
  }
});

test("nothing behind a gap is shown before the gap is filled", () => {
  const store = new LogStore();
  store.add([chunk(1), chunk(4), chunk(6)]);
  assert.deepEqual(store.texts, ["line 1"]);
  assert.deepEqual(store.gaps(), [{ from: 2, to: 3 }, { from: 5, to: 5 }]);
  store.add([chunk(2), chunk(3)]);
  assert.deepEqual(store.texts, ["line 1", "line 2", "line 3", "line 4"]);
  assert.equal(store.wanted, 5);
});

test("a gap that the server cannot fill is named, and what lies behind it is shown", () => {
  const store = new LogStore();
  store.add([chunk(1), chunk(4)]);
  store.giveUp();
  assert.deepEqual(store.texts, ["line 1", "line 4"]);
  assert.deepEqual(store.holes, [{ from: 2, to: 3, before: 1 }]);
  assert.match(toText(store, { timestamps: false }), /^line 1\n\[Lines are missing here: 2 chunks .*\]\nline 4\n$/);
});

test("a chunk that comes after its gap was given up takes its place", () => {
  const store = new LogStore();
  store.add([chunk(1), chunk(4)]);
  store.giveUp();
  store.add([chunk(3)]);
  assert.deepEqual(store.texts, ["line 1", "line 3", "line 4"]);
  assert.deepEqual(store.holes, [{ from: 2, to: 2, before: 1 }]);
  assert.equal(store.generation, 1);
  store.add([chunk(2)]);
  assert.deepEqual(store.texts, ["line 1", "line 2", "line 3", "line 4"]);
  assert.deepEqual(store.holes, []);
});

test("an end that is not here is named", () => {
  const store = new LogStore();
  store.add([chunk(1)]);
  store.endAt(3);
  assert.deepEqual(store.holes, [{ from: 2, to: 3, before: 1 }]);
  store.endAt(3);
  assert.equal(store.holes.length, 1);
});

test("a chunk has several lines, empty ones too, and a last one without a newline", () => {
  const store = new LogStore();
  store.add([chunk(1, "a\n\nb\n"), chunk(2, "c")]);
  assert.deepEqual(store.texts, ["a", "", "b", "c"]);
});

test("text has times where they are requested, and a range is a range", () => {
  const store = new LogStore();
  store.add([chunk(1, "a\nb\nc\n")]);
  assert.equal(toText(store, { timestamps: true, from: 1, to: 2 }), "2026-01-01T00:00:01.000Z b\n");
  assert.equal(toText(store, { timestamps: false, from: 1, to: 3 }), "b\nc\n");
});
