import assert from "node:assert/strict";
import { test } from "node:test";
import { hasEscapes, palette, plain, spans } from "../../log/ansi.ts";

const text = (line: string): string => spans(line).spans.map((span) => span.text).join("");

test("colours, weight and their ends become spans", () => {
  assert.deepEqual(spans("a\x1b[1;31mred\x1b[0m b").spans, [
    { text: "a", style: {} },
    { text: "red", style: { bold: true, foreground: 1 } },
    { text: " b", style: {} },
  ]);
});

test("bright, 256 and true colours are read, with semicolons or colons", () => {
  assert.equal(spans("\x1b[92mx").spans[0]!.style.foreground, 10);
  assert.equal(spans("\x1b[38;5;208mx").spans[0]!.style.foreground, 208);
  assert.equal(spans("\x1b[48;2;1;2;255mx").spans[0]!.style.background, "#0102ff");
  assert.deepEqual(spans("\x1b[38;5;208;1mx").spans[0]!.style, { foreground: 208, bold: true });
  assert.equal(palette(208), "#ff8700");
  assert.equal(palette(244), "#808080");
  assert.equal(palette(3), null);
});

test("a style continues in the next line until it is reset", () => {
  const first = spans("\x1b[33mwarning");
  assert.deepEqual(spans("still", first.end).spans, [{ text: "still", style: { foreground: 3 } }]);
  assert.deepEqual(spans("\x1b[mplain", first.end).spans, [{ text: "plain", style: {} }]);
});

test("what is no colour is left out: cursor movement, titles, links, bells", () => {
  assert.equal(plain("\x1b[2K\x1b[1Aup\x07"), "up");
  assert.equal(plain("\x1b]0;title\x07text"), "text");
  assert.equal(plain("\x1b]8;;https://example.com\x1b\\link\x1b]8;;\x1b\\"), "link");
});

test("a carriage return overwrites the line, as on a terminal", () => {
  assert.equal(plain("10%\r50%\r100%"), "100%");
  assert.equal(plain("windows line\r"), "windows line");
});

test("an escape that is cut off at the end of a chunk is no text and no error", () => {
  for (const line of ["\x1b", "\x1b[", "\x1b[31", "\x1b]0;title"]) assert.doesNotThrow(() => text(line));
});

test("markup stays text", () => {
  const line = "<img src=x onerror=alert(1)>\x1b[31m<b>";
  assert.equal(text(line), "<img src=x onerror=alert(1)><b>");
  assert.ok(hasEscapes(line) && !hasEscapes("tab\tand text"));
});

test("plain text is the text of the spans, whatever comes", () => {
  const pool = ["\x1b[31m", "\x1b[0m", "a", "é", "\r", "\x1b", "[", "m", "\t", "\x1b[38;5;", "7", ";", "\x07", "😀"];
  let seed = 7;
  const next = (): number => (seed = (seed * 1103515245 + 12345) % 2147483648);
  for (let i = 0; i < 3000; i++) {
    const line = Array.from({ length: next() % 12 }, () => pool[next() % pool.length]).join("");
    assert.equal(text(line), plain(line), JSON.stringify(line));
  }
});
