import assert from "node:assert/strict";
import { test } from "node:test";
import { extend, formatAnchor, parseAnchor } from "../../log/anchor.ts";
import { compile, Finder, matchesIn } from "../../log/find.ts";
import { relative } from "../../log/text.ts";

const find = (texts: string[], text: string, options: { regex?: boolean; matchCase?: boolean } = {}): Finder => {
  const expression = compile({ text, regex: options.regex ?? false, matchCase: options.matchCase ?? false });
  assert.ok(expression instanceof RegExp);
  const finder = new Finder(expression);
  while (!finder.advance(texts, 5, () => performance.now())) ;
  return finder;
};

test("plain text is no pattern, and case does not matter unless it shall", () => {
  assert.equal(find(["a.c", "abc", "A.C"], "a.c").total, 2);
  assert.equal(find(["a.c", "abc", "A.C"], "a.c", { matchCase: true }).total, 1);
  assert.equal(find(["a.c", "abc", "A.C"], "a.c", { regex: true }).total, 3);
});

test("a line with two matches counts twice, and next and previous go around", () => {
  const finder = find(["x x", "y", "x"], "x");
  assert.deepEqual([finder.lines, finder.ordinals], [[0, 0, 2], [0, 1, 0]]);
  assert.equal(finder.step(2, 1), 0);
  assert.equal(finder.step(0, -1), 2);
  assert.equal(finder.from(1), 2);
  assert.equal(finder.from(9), 0);
});

test("lines that come later are searched, too", () => {
  const texts = ["x"];
  const finder = find(texts, "x");
  texts.push("x");
  finder.advance(texts, 5, () => performance.now());
  assert.equal(finder.total, 2);
});

test("a search stops when its time is over, and continues where it was", () => {
  const texts = Array.from({ length: 10_000 }, () => "x");
  const finder = new Finder(/x/gu);
  let now = 0;
  assert.equal(finder.advance(texts, 2, () => now++), false);
  assert.ok(finder.through > 0 && finder.through < texts.length);
  while (!finder.advance(texts, 5, () => performance.now())) ;
  assert.equal(finder.total, 10_000);
});

test("a pattern that matches nothing at all is no find, and a wrong one is a sentence", () => {
  assert.deepEqual(matchesIn("abc", /x*/gu), []);
  assert.match(String(compile({ text: "(", regex: true, matchCase: false })), /^Not a regular expression/);
  assert.equal(compile({ text: "", regex: true, matchCase: false }), null);
});

test("a link names a line or a range, in either order", () => {
  assert.deepEqual(parseAnchor("#L120-L140"), { first: 120, last: 140 });
  assert.deepEqual(parseAnchor("#L140-120"), { first: 120, last: 140 });
  assert.deepEqual(parseAnchor("#L7"), { first: 7, last: 7 });
  for (const hash of ["", "#", "#L0", "#L", "#Lx", "#L1-", "#L99999999999", "#top"]) assert.equal(parseAnchor(hash), null, hash);
  assert.equal(formatAnchor({ first: 3, last: 3 }), "#L3");
  assert.equal(formatAnchor(extend({ first: 5, last: 6 }, 2, true)), "#L2-L6");
});

test("relative times are short", () => {
  assert.deepEqual([0, 12_400, 187_000, 3_723_000].map(relative), ["+0.0s", "+12.4s", "+3:07", "+1:02:03"]);
});
