// Each page in both themes and on a phone: judged by axe, and photographed on request (PORTAL_SCREENSHOTS=1).

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { test } from "node:test";
import type { Page } from "playwright-core";
import { open, operator, waiting, world, type Operator } from "./scene.ts";
import { queue } from "./steps.ts";
import { portal } from "./world.ts";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const photographs = process.env.PORTAL_SCREENSHOTS === "1";

interface Finding {
  id: string;
  impact: string;
  nodes: { target: string[]; failureSummary: string }[];
}

async function judge(page: Page, name: string): Promise<void> {
  // The page's policy forbids scripts that are not its own: axe comes through the debugger.
  await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    const { violations } = await (window as unknown as { axe: { run(options: object): Promise<{ violations: Finding[] }> } }).axe.run({ resultTypes: ["violations"] });
    return violations.filter((each) => ["serious", "critical"].includes(each.impact)).map((each) => ({ id: each.id, nodes: each.nodes.slice(0, 3).map((node) => `${node.target.join(" ")}: ${node.failureSummary}`) }));
  });
  assert.deepEqual(found, [], name);
}

/** Deployments in every state that a list can have. */
async function furnish(mine: Operator): Promise<{ waits: string; failed: string; done: string }> {
  const { waits, failed, done } = { waits: (await waiting(mine, "prod")).deployment, ...(await ended(mine)) };
  return { waits, failed, done };
}

async function ended(mine: Operator): Promise<{ failed: string; done: string }> {
  const log = Array.from({ length: 40 }, (_, i) => `terraform_data.greeting: (local-exec): line ${i + 1} of 40`).join("\n");
  const done = await queue(world, mine.page, mine.cluster, { template: "hello", stack: "staging", variables: { name: "team" } });
  const good = await mine.agent.claim(done);
  await good.log("agent", ["Attempt 1 on agent scripted with terraform 1.11.4.", "terraform init"]);
  await good.log("stdout", ["Terraform has been successfully initialized!"]);
  await good.log("agent", ["terraform plan"]);
  await good.log("stdout", [Array.from({ length: 9 }, (_, i) => `aws_subnet.private[${i}]: Refreshing state... [id=subnet-0${i}]`).join("\n"), "\x1b[1mPlan:\x1b[0m 2 to add, 0 to change, 0 to destroy."]);
  await good.report({ phase: "APPLY", plan_summary: { add: 2 } });
  await good.log("agent", ["terraform apply"]);
  await good.log("stdout", ["terraform_data.greeting: Creating...", log, "\x1b[32mApply complete!\x1b[0m Resources: 2 added, 0 changed, 0 destroyed."]);
  await good.log("stderr", ["\x1b[33mWarning:\x1b[0m a value for an undeclared variable"]);
  await good.end("SUCCESS", { outputs: { message: "Hello, team!", endpoints: ["a.example", "b.example"] } });
  const failed = await queue(world, mine.page, mine.cluster, { template: "hello", stack: "dev", variables: { name: "x" } });
  const bad = await mine.agent.claim(failed);
  await bad.log("agent", ["Attempt 1 on agent scripted with terraform 1.11.4.", "terraform init", "terraform plan"]);
  await bad.log("stdout", ["\x1b[31mError:\x1b[0m Invalid value for variable", "  with var.greeting, on main.tf:4"]);
  await bad.end("FAILED", { error_code: "TERRAFORM_FAILED", error_message: "Invalid value for variable\n  on variables.tf line 6: The greeting must be 1 to 40 letters, spaces or apostrophes." });
  await queue(world, mine.page, mine.cluster, { template: "vpc", stack: "eu", variables: { name: "prod", region: "eu-central-1" } });
  return { failed, done };
}

test("no page has a serious fault of accessibility, in light and dark, on a desk and on a phone", async () => {
  const mine = await operator();
  const { waits, failed, done } = await furnish(mine);
  const signedIn = await mine.visitor.context.storageState();
  const pages: [string, string, ((page: Page) => Promise<unknown>)][] = [
    ["deployments", "/deployments/", (page) => page.getByRole("table").waitFor()],
    ["stacks", "/stacks/", (page) => page.getByRole("table").waitFor()],
    ["clusters", "/clusters/", (page) => page.getByRole("table").waitFor()],
    ["cluster", `/cluster/?id=${mine.cluster}`, (page) => page.getByRole("row", { name: /scripted/ }).waitFor()],
    ["new", `/new/?template=everything`, async (page) => {
      await page.getByRole("textbox", { name: "Region" }).waitFor();
      await page.getByRole("button", { name: "Plan", exact: true }).click();
      await page.getByText("2 values have to be corrected.").waitFor();
    }],
    ["approval", `/deployment/?id=${waits}`, async (page) => {
      await page.getByRole("button", { name: "Approve and apply" }).waitFor();
      await page.getByRole("button", { name: /aws_subnet.private/ }).click();
      await page.getByRole("button", { name: /aws_iam_policy.deploy/ }).click();
    }],
    ["log", `/deployment/?id=${done}&tab=log`, (page) => page.locator("[data-connection=ended]").waitFor()],
    ["failed", `/deployment/?id=${failed}`, (page) => page.locator("[data-connection=ended]").waitFor()],
    ["outputs", `/deployment/?id=${done}&tab=outputs`, (page) => page.getByText("Hello, team!").waitFor()],
    ["configuration", `/deployment/?id=${done}&tab=configuration`, (page) => page.getByText("Variables").waitFor()],
    ["key", "/clusters/", async (page) => {
      await page.getByRole("button", { name: "Add cluster" }).click();
      await page.getByRole("textbox", { name: "Name" }).fill("staging");
      await page.getByRole("dialog").getByRole("button", { name: "Add cluster" }).click();
      await page.getByRole("region", { name: "Helm" }).waitFor();
    }],
    ["sign-up", "/sign-up/", (page) => page.getByRole("button", { name: "Sign up" }).waitFor()],
    ["sign-in", "/sign-in/", (page) => page.getByRole("button", { name: "Sign in" }).waitFor()],
  ];
  for (const options of [{ theme: "light" }, { theme: "dark" }, { theme: "dark", phone: true }] as const) {
    const visitor = await open(options);
    const { page } = visitor;
    const kind = "phone" in options ? "phone" : options.theme;
    for (const [name, address, ready] of pages) {
      const out = name.startsWith("sign-");
      await page.goto("/sign-in/");
      await page.evaluate(
        ([session, theme]) => {
          localStorage.clear();
          if (session) localStorage.setItem("tendril-session", session);
          if (theme === "light") localStorage.setItem("tendril-log-scheme", "light");
        },
        [out ? "" : signedIn.origins[0]!.localStorage.find((each) => each.name === "tendril-session")!.value, options.theme],
      );
      await page.goto(address);
      await ready(page);
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true, `${kind} ${name}: nothing is wider than the page`);
      if (photographs) {
        await page.evaluate(() => scrollTo(0, 0));
        mkdirSync(path.join(portal, "screenshots"), { recursive: true });
        await page.screenshot({ path: path.join(portal, "screenshots", `${name}-${kind}.png`), animations: "disabled", caret: "hide" });
      }
      await judge(page, `${kind} ${name}`);
    }
  }
});

test("every dialog and every tab is reached by the keyboard", async () => {
  const mine = await operator();
  const { page } = mine;
  await page.goto("/clusters/");
  await page.getByRole("button", { name: "Add cluster" }).focus();
  await page.keyboard.press("Enter");
  const dialog = page.getByRole("dialog");
  await dialog.waitFor();
  await judge(page, "dialog");
  assert.ok(await dialog.evaluate((element) => element.contains(document.activeElement)), "the focus is inside");
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  assert.ok(await page.getByRole("button", { name: "Add cluster" }).evaluate((element) => element === document.activeElement), "and comes back");
  const { deployment } = await waiting(mine, "keys");
  await page.goto(`/deployment/?id=${deployment}`);
  await page.getByRole("tab", { name: /Plan/ }).focus();
  await page.keyboard.press("ArrowRight");
  await page.getByRole("log").waitFor();
  assert.equal(await page.getByRole("log").getAttribute("aria-live"), "off");
  await page.keyboard.press("ArrowLeft");
  await page.getByRole("list", { name: "Planned changes" }).waitFor();
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  assert.equal(await page.getByRole("list", { name: "Planned changes" }).getByRole("button").first().getAttribute("aria-expanded"), "true");
});

test("motion is for those who want it", async () => {
  const { page } = await open();
  await page.emulateMedia({ reducedMotion: "reduce" });
  await page.goto("/sign-in/");
  const moving = await page.evaluate(() => {
    const dot = Object.assign(document.createElement("i"), { className: "dot moving" });
    document.body.append(dot);
    return getComputedStyle(dot).animationName;
  });
  assert.equal(moving, "none");
});
