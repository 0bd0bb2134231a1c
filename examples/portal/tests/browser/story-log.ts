// The log: what people expect of every log viewer.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Page } from "playwright-core";
import { operator, world, type Operator } from "./scene.ts";
import type { Run } from "./scripted-agent.ts";
import { lineCount, queue, shownLines, waitForLines, wholeText } from "./steps.ts";

async function started(of: Operator, stack: string): Promise<{ run: Run; path: string }> {
  const deployment = await queue(world, of.page, of.cluster, { template: "slow", stack, variables: { name: "x" } });
  const run = await of.agent.claim(deployment);
  await run.report({ phase: "APPLY" });
  return { run, path: `/deployment/?id=${deployment}` };
}

const range = (from: number, to: number, text = "line"): string => Array.from({ length: to - from + 1 }, (_, i) => `${text} ${from + i}\n`).join("");
const scroller = (page: Page) => page.getByRole("log");
const distance = (page: Page): Promise<number> => scroller(page).evaluate((element) => element.scrollHeight - element.clientHeight - element.scrollTop);

test("the log follows its end, stops at once on a scroll, counts what is new, and resumes at the bottom", async () => {
  const mine = await operator();
  const { page } = mine;
  const { run, path } = await started(mine, "follow");
  await run.log("agent", ["terraform apply"]);
  await run.log("stdout", [range(1, 200)]);
  await page.goto(path);
  await waitForLines(page, 201);
  await page.locator(".text", { hasText: /^line 200$/ }).waitFor();
  await run.log("stdout", [range(201, 260)]);
  await page.locator(".text", { hasText: /^line 260$/ }).waitFor();
  assert.ok((await distance(page)) <= 1, "it is at its end");

  await scroller(page).hover();
  await page.mouse.wheel(0, -400);
  await page.getByRole("button", { name: "Follow" }).waitFor();
  const place = await scroller(page).evaluate((element) => element.scrollTop);
  await run.log("stdout", [range(261, 290)]);
  await page.getByRole("button", { name: "30 new lines" }).waitFor();
  assert.equal(await scroller(page).evaluate((element) => element.scrollTop), place, "nothing moves under the reader");
  await page.getByRole("button", { name: "30 new lines" }).click();
  await page.locator(".text", { hasText: /^line 290$/ }).waitFor();
  await page.mouse.wheel(0, -400);
  await page.getByRole("button", { name: "Follow" }).waitFor();
  await page.mouse.wheel(0, 4000);
  await page.locator("[data-following=true]").waitFor();
  await run.log("stdout", [range(291, 300)]);
  await page.locator(".text", { hasText: /^line 300$/ }).waitFor();
  await scroller(page).focus();
  await page.keyboard.press("PageUp");
  await page.locator("[data-following=false]").waitFor();
  await run.end("SUCCESS", {});
});

test("find goes over the whole log; links open scrolled and marked; a range is copied without numbers", async () => {
  const mine = await operator();
  const { page } = mine;
  const { run, path } = await started(mine, "find");
  await run.log("agent", ["Attempt 1 on agent scripted.", "terraform init"]);
  await run.log("stdout", ["needle in init", range(1, 20)]);
  await run.log("agent", ["terraform apply"]);
  for (let i = 0; i < 20; i++) await run.log("stdout", [range(i * 150 + 1, (i + 1) * 150, "row"), `needle ${i}\n`]);
  await run.end("SUCCESS", { plan_summary: { add: 1 } });
  await page.goto(path);
  await page.locator("[data-connection=ended]").waitFor();
  await page.keyboard.press("Control+f");
  const input = page.getByRole("textbox", { name: "Find in the whole log" });
  const count = page.getByTestId("find-count");
  await input.fill("NEEDLE");
  await count.filter({ hasText: /of 21$/ }).waitFor();
  await page.getByRole("button", { name: "Match case" }).click();
  await count.filter({ hasText: "No match" }).waitFor();
  await page.getByRole("button", { name: "Match case" }).click();
  await page.getByRole("button", { name: "Regular expression" }).click();
  await input.fill("needle 1[0-9]$");
  await count.filter({ hasText: /of 10$/ }).waitFor();
  const current = page.locator("mark.current");
  const first = await current.textContent();
  await input.press("Enter");
  await page.waitForFunction((before) => { const mark = document.querySelector("mark.current"); return mark && mark.textContent !== before; }, first);
  await input.press("Shift+Enter");
  await page.waitForFunction((before) => document.querySelector("mark.current")?.textContent === before, first);
  await input.fill("needle (");
  await count.filter({ hasText: "Not a regular expression" }).waitFor();
  await input.fill("needle in init");
  await page.locator("mark.current", { hasText: "needle in init" }).waitFor();
  assert.ok(await current.isVisible(), "a folded phase opens for what is found in it");
  await input.press("Escape");

  await page.goto("about:blank");
  await page.goto(`${path}#L120-L140`);
  await page.locator(".line.marked").first().waitFor();
  const marked = await page.locator(".line.marked").evaluateAll((lines) => lines.map((line) => Number((line as HTMLElement).dataset.line)));
  assert.deepEqual(marked, Array.from({ length: 21 }, (_, i) => 120 + i));
  assert.ok(await page.locator('.line[data-line="120"]').isVisible());
  await page.getByRole("button", { name: "Copy lines" }).click();
  await page.getByText("Copied").waitFor();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  assert.equal(copied.trim().split("\n").length, 21);
  assert.match(copied, /^row \d+\n/);
  await page.locator('.line[data-line="125"] .ln').click();
  assert.equal(new URL(page.url()).hash, "#L125");
  await page.locator('.line[data-line="128"] .ln').click({ modifiers: ["Shift"] });
  assert.equal(new URL(page.url()).hash, "#L125-L128");
  await scroller(page).evaluate((element) => {
    const range = document.createRange();
    range.selectNodeContents(element.querySelector('.line[data-line="126"]')!);
    getSelection()!.removeAllRanges();
    getSelection()!.addRange(range);
  });
  await page.keyboard.press("Control+c");
  assert.doesNotMatch(await page.evaluate(() => navigator.clipboard.readText()), /126/, "numbers are not copied");
});

test("phases and refreshes are folded, colours are colours, markup is text, gaps are named, times are remembered", async () => {
  const mine = await operator();
  const { page } = mine;
  const { run, path } = await started(mine, "looks");
  await run.log("agent", ["Attempt 1 on agent scripted."], { ts: "2026-01-01T10:00:00Z" });
  await run.log("agent", ["terraform plan"], { ts: "2026-01-01T10:00:01Z" });
  await run.log("stdout", [Array.from({ length: 30 }, (_, i) => `aws_x.y[${i}]: Refreshing state... [id=${i}]\n`).join("")], { ts: "2026-01-01T10:00:02Z" });
  await run.log("agent", ["terraform apply"], { ts: "2026-01-01T10:03:00Z" });
  await run.log("stdout", ["\x1b[1;31mred\x1b[0m <img src=x onerror=alert(1)> \x1b]0;title\x07plain"], { ts: "2026-01-01T10:03:01Z" });
  await run.log("stderr", ["after the gap"], { skip: 3, ts: "2026-01-01T10:03:02Z" });
  await run.end("FAILED", { error_code: "TERRAFORM_FAILED", error_message: "boom" });
  await page.goto(`${path}&tab=log`);
  await page.getByText("Lines are missing here: 3 chunks of the log were not stored.").waitFor();
  await page.getByRole("button", { name: /Plan 2 min 59 s · 31 lines done/ }).waitFor();
  await page.getByRole("button", { name: /Apply .*failed/ }).waitFor();
  assert.equal(await page.getByRole("button", { name: /^Prepare/ }).getAttribute("aria-expanded"), "false");
  await page.getByRole("button", { name: /^Plan 2 min/ }).click();
  const refreshes = page.getByRole("button", { name: "30 lines of reading and refreshing" });
  assert.equal(await refreshes.getAttribute("aria-expanded"), "false");
  await refreshes.click();
  await page.locator(".text", { hasText: "aws_x.y[29]" }).waitFor();
  await scroller(page).focus();
  await page.keyboard.press("End");
  const red = page.locator(".text span", { hasText: /^red$/ });
  assert.notEqual(await red.evaluate((span) => getComputedStyle(span).color), await page.locator(".line.stdout .text").first().evaluate((span) => getComputedStyle(span).color));
  assert.ok((await shownLines(page)).includes("red <img src=x onerror=alert(1)> plain"));
  await page.getByRole("button", { name: /^Times: off/ }).click();
  await page.reload();
  await page.getByRole("button", { name: /^Times: since the start/ }).click();
  await page.locator('.lt[data-t="10:03:01.000"]').waitFor();
  const [raw] = await Promise.all([mine.visitor.context.waitForEvent("page"), page.getByRole("button", { name: "Raw log in a new tab" }).click()]);
  await raw.waitForLoadState();
  assert.match((await raw.textContent("body"))!, /10:00:02.000Z aws_x.y\[29\]: Refreshing/);
  await raw.close();
  assert.match(await wholeText(page), /\[Lines are missing here: 3 chunks.*\]\n2026-01-01T10:03:02.000Z after the gap\n$/);
  // Long lines are broken where that is wanted, and nothing is lost by it.
  await page.getByRole("button", { name: "Break long lines" }).click();
  await page.locator(".text", { hasText: "after the gap" }).waitFor();
});

test("100,000 lines: read, scrolled, searched and still written to, without a freeze", async () => {
  const mine = await operator();
  const { page } = mine;
  const { run, path } = await started(mine, "flood");
  await run.log("agent", ["terraform apply"]);
  const per = 250;
  for (let n = 0; n < 400; n += 40) await run.log("stdout", Array.from({ length: 40 }, (_, i) => range((n + i) * per + 1, (n + i + 1) * per, "terraform_data.flood: (local-exec): line")));
  const began = Date.now();
  await page.goto(path);
  await waitForLines(page, 100_001, 60_000);
  await page.locator(".text", { hasText: /line 100000$/ }).waitFor();
  const read = Date.now() - began;

  await scroller(page).hover();
  await page.mouse.wheel(0, -100);
  const scrolled = await page.evaluate(frames, { ms: 1500, step: 3000 });
  const nodes = await page.evaluate(() => document.querySelectorAll("*").length);
  const heap = await page.evaluate(() => {
    (globalThis as unknown as { gc?: () => void }).gc?.();
    return (performance as unknown as { memory: { usedJSHeapSize: number } }).memory.usedJSHeapSize / 1048576;
  });
  const searching = Date.now();
  await page.keyboard.press("Control+f");
  await page.getByRole("textbox", { name: "Find in the whole log" }).fill("line 99999");
  await page.getByTestId("find-count").filter({ hasText: /1 of 1$/ }).waitFor();
  const found = Date.now() - searching;
  await page.keyboard.press("Escape");

  // Five thousand more within a second, while somebody watches.
  const follow = page.getByRole("button", { name: /Follow|new line/ });
  await follow.click();
  const watching = page.evaluate(frames, { ms: 2500, step: 0 });
  for (let i = 0; i < 10; i++) {
    await run.log("stdout", [range(100_001 + i * 500, 100_250 + i * 500), range(100_251 + i * 500, 100_500 + i * 500)]);
  }
  const burst = await watching;
  await waitForLines(page, 105_001);
  await page.locator(".text", { hasText: /^line 105000$/ }).waitFor();
  console.log(
    `100,000 lines: last line after ${read} ms; scrolling ${describe(scrolled)}; a burst of 5,000 lines ${describe(burst)}; ` +
      `found in ${found} ms; heap ${heap.toFixed(0)} MiB; ${nodes} DOM nodes`,
  );
  assert.equal(await lineCount(page), 105_001);
  assert.ok(nodes < 1500, `${nodes} DOM nodes`);
  assert.ok(heap < 150, `${heap} MiB`);
  // The work of a frame, not the time between two: other programs of a busy machine do not count.
  assert.ok(scrolled.work95 < 32, `scrolling: ${describe(scrolled)}`);
  assert.ok(burst.work95 < 16, `burst: ${describe(burst)}`);
  await run.end("SUCCESS", {});
});

test("a line of 60,000 characters, nothing but escapes, and lines of Windows are lines", async () => {
  const mine = await operator();
  const { page } = mine;
  const { run, path } = await started(mine, "strange");
  await run.log("stdout", ["x".repeat(60_000), "\x1b[31m\x1b[0m\x1b[2K", "of Windows\r\nsecond\r", "10%\r100%", "﷽ 👩‍👩‍👧 日本語\ttab"]);
  await run.end("SUCCESS", {});
  await page.goto(`${path}&tab=log`);
  await page.locator("[data-connection=ended]").waitFor();
  assert.equal(await lineCount(page), 6);
  await page.getByRole("button", { name: "Break long lines" }).click();
  await scroller(page).focus();
  await page.keyboard.press("End");
  await page.locator(".text", { hasText: "日本語" }).waitFor();
  assert.deepEqual((await shownLines(page)).slice(-5), ["", "of Windows", "second", "100%", "﷽ 👩‍👩‍👧 日本語\ttab"]);
  await page.keyboard.press("Control+f");
  await page.getByRole("textbox", { name: "Find in the whole log" }).fill("日本");
  await page.getByTestId("find-count").filter({ hasText: "1 of 1" }).waitFor();
});

interface Frames {
  n: number;
  between50: number;
  between95: number;
  /** Milliseconds of script, style and layout in a frame. */
  work95: number;
}

const describe = (found: Frames): string => `${found.n} frames, ${found.between50.toFixed(0)} / ${found.between95.toFixed(0)} ms between them (p50 / p95), ${found.work95.toFixed(1)} ms of work (p95)`;

/** In the page: scrolls by `step` each frame and measures. */
function frames({ ms, step }: { ms: number; step: number }): Promise<Frames> {
  return new Promise((resolve) => {
    const element = document.querySelector<HTMLElement>(".log-scroll")!;
    const between: number[] = [];
    const work: number[] = [];
    const began = performance.now();
    let last = began;
    let direction = -1;
    const channel = new MessageChannel();
    let frameBegan = 0;
    // A message posted in a frame arrives after its scripts, style and layout.
    channel.port1.onmessage = () => void work.push(performance.now() - frameBegan);
    const next = (now: number): void => {
      between.push(now - last);
      last = now;
      if (step > 0) {
        if (element.scrollTop < step) direction = 1;
        element.scrollTop += direction * step;
      }
      frameBegan = performance.now();
      channel.port2.postMessage(null);
      if (now - began < ms) requestAnimationFrame(next);
      else {
        const at = (list: number[], part: number): number => [...list].sort((a, b) => a - b)[Math.floor(list.length * part)] ?? 0;
        resolve({ n: between.length, between50: at(between, 0.5), between95: at(between, 0.95), work95: at(work, 0.95) });
      }
    };
    requestAnimationFrame(next);
  });
}
