// What several stories do on a page.

import type { Page } from "playwright-core";
import type { World } from "./world.ts";
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import path from "node:path";

/** What the page holds of its session; a test sends requests with it as the page would. */
export const session = (page: Page): Promise<{ access_token: string; user: { id: string } }> =>
  page.evaluate(() => JSON.parse(localStorage.getItem("tendril-session")!) as { access_token: string; user: { id: string } });

/** A request with a user's own rights. */
export async function asUser(world: World, page: Page, method: string, pathAndQuery: string, body?: unknown): Promise<unknown> {
  const { access_token: token } = await session(page);
  const answer = await fetch(`${world.stack.url}/rest/v1/${pathAndQuery}`, {
    method, headers: { apikey: world.stack.anonKey, Authorization: `Bearer ${token}`, "Content-Type": "application/json", Prefer: "return=representation" },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${pathAndQuery}: ${answer.status} ${text}`);
  return text === "" ? null : JSON.parse(text);
}

/** Queues a deployment as its user; answers its id. */
export async function queue(world: World, page: Page, cluster: string, config: object): Promise<string> {
  const rows = (await asUser(world, page, "POST", "deployments?select=id", { cluster_id: cluster, config_snapshot: config })) as { id: string }[];
  return rows[0]!.id;
}

export async function clusterId(world: World, page: Page, name: string): Promise<string> {
  const rows = (await asUser(world, page, "GET", `clusters?select=id&name=eq.${encodeURIComponent(name)}`)) as { id: string }[];
  return rows[0]!.id;
}

/** The database's own clock and privileges, for what takes minutes otherwise. */
export function sql(world: World, statement: string): void {
  const dirs = [process.env.TENDRIL_PG_BINDIR ?? "", ...(process.env.PATH ?? "").split(":"), ...(existsSync("/usr/lib/postgresql") ? readdirSync("/usr/lib/postgresql").map((version) => `/usr/lib/postgresql/${version}/bin`) : [])];
  const dir = dirs.find((each) => each !== "" && existsSync(path.join(each, "psql")));
  if (!dir) throw new Error("psql is missing: it comes with PostgreSQL's client");
  execFileSync(path.join(dir, "psql"), [world.stack.database, "-v", "ON_ERROR_STOP=1", "-qc", statement], { stdio: ["ignore", "ignore", "inherit"] });
}

/** The lines that are on the screen, in order. */
export const shownLines = (page: Page): Promise<string[]> => page.locator(".log-scroll .line .text").allTextContents();

/** How many lines the page has. */
export const lineCount = (page: Page): Promise<number> => page.getByTestId("log").getAttribute("data-lines").then(Number);

export async function waitForLines(page: Page, n: number, timeout = 45_000): Promise<void> {
  await page.waitForFunction((wanted) => Number(document.querySelector("[data-testid=log]")?.getAttribute("data-lines")) >= wanted, n, { timeout });
}

/** The log as it would be downloaded. */
export async function wholeText(page: Page): Promise<string> {
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download with times" }).click()]);
  const stream = await download.createReadStream();
  let text = "";
  for await (const part of stream) text += String(part);
  return text;
}
