// One stack, one server, one browser for all stories; each story has users and pages of its own.

import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";
import { execFileSync } from "node:child_process";
import { connect, createServer, type Socket } from "node:net";
import path from "node:path";
import { serve } from "../../server/serve.mjs";
import { startStack, type Stack } from "./processes.ts";

export const portal = path.resolve(import.meta.dirname, "../..");

export interface World {
  stack: Stack;
  browser: Browser;
  /** Where the portal is. */
  url: string;
  /** Between the browser and the stack: what a network does to a connection. */
  wire: Wire;
  close(): Promise<void>;
}

function findChromium(): string {
  const named = process.env.CHROMIUM;
  if (named) return named;
  for (const name of ["chromium", "chromium-browser", "google-chrome"]) {
    try {
      return execFileSync("sh", ["-c", `command -v ${name}`], { encoding: "utf8" }).trim();
    } catch {
      // The next name.
    }
  }
  throw new Error("no Chromium here: run scripts/setup.sh, or set CHROMIUM to one");
}

/** A TCP proxy that can be cut. */
export interface Wire {
  url: string;
  /** Ends all connections, and refuses new ones for as long as the returned function is not called. */
  cut(): () => void;
  close(): void;
}

async function wire(to: URL): Promise<Wire> {
  const sockets = new Set<Socket>();
  let refusing = false;
  const server = createServer((near) => {
    if (refusing) {
      near.destroy();
      return;
    }
    const far = connect(Number(to.port), to.hostname);
    for (const [one, other] of [[near, far], [far, near]] as const) {
      sockets.add(one);
      one.on("error", () => other.destroy()).on("close", () => {
        sockets.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  return {
    url: `http://127.0.0.1:${port}`,
    cut() {
      refusing = true;
      for (const socket of sockets) socket.destroy();
      return () => {
        refusing = false;
      };
    },
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

export async function openWorld(): Promise<World> {
  const stack = await startStack();
  const line = await wire(new URL(stack.url));
  const server = await serve({ dir: path.join(portal, "out"), supabaseUrl: line.url, publishableKey: stack.anonKey });
  const browser = await chromium.launch({
    executablePath: findChromium(),
    // A container's root has no sandbox, and its /dev/shm is small.
    args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--js-flags=--expose-gc", "--enable-precise-memory-info"],
  });
  return {
    stack, browser, url: server.url, wire: line,
    async close() {
      await browser.close();
      await server.close();
      line.close();
      await stack.stop();
    },
  };
}

/** What a page did that it must not. */
export interface Watched {
  context: BrowserContext;
  page: Page;
  violations: string[];
  strangers: string[];
  errors: string[];
}

/** A visitor with a browser profile of its own. */
export async function visit(world: World, options: { theme?: "light" | "dark"; phone?: boolean } = {}): Promise<Watched> {
  const context = await world.browser.newContext({
    viewport: options.phone ? { width: 390, height: 844 } : { width: 1280, height: 800 },
    deviceScaleFactor: 1, hasTouch: options.phone ?? false, isMobile: options.phone ?? false,
    colorScheme: options.theme ?? "light", baseURL: world.url, locale: "en-GB", timezoneId: "UTC",
    permissions: ["clipboard-read", "clipboard-write"], acceptDownloads: true,
  });
  context.setDefaultTimeout(45_000);
  const violations: string[] = [];
  const strangers: string[] = [];
  const errors: string[] = [];
  await context.exposeBinding("reportViolation", (_, text: string) => void violations.push(text));
  await context.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      (window as unknown as { reportViolation(text: string): void }).reportViolation(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber} ${event.sample}`);
    });
  });
  const ours = [world.url, world.wire.url, world.wire.url.replace("http", "ws")];
  const look = (url: string): void => {
    if (!ours.some((own) => url.startsWith(own)) && !/^(data|blob|about):/.test(url)) strangers.push(url);
  };
  context.on("request", (request) => look(request.url()));
  const page = await context.newPage();
  page.on("websocket", (socket) => look(socket.url()));
  page.on("pageerror", (error) => errors.push(String(error.stack ?? error)));
  page.on("console", (message) => {
    if (message.type() === "error" && /Content Security Policy|Minified React error|hydrat/i.test(message.text())) errors.push(message.text());
  });
  return { context, page, violations, strangers, errors };
}

let people = 0;

/** Somebody new signs up, in the browser. */
export async function signUp(page: Page): Promise<{ email: string; password: string }> {
  const email = `person-${Date.now()}-${++people}@tendril.invalid`;
  const password = "correct horse battery";
  await page.goto("/sign-up/");
  await page.getByLabel("Email").fill(email);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Sign up" }).click();
  await page.waitForURL("**/deployments/");
  return { email, password };
}

/** Adds a cluster as a person does; answers its key. */
export async function addCluster(page: Page, name: string): Promise<string> {
  await page.goto("/clusters/");
  await page.getByRole("button", { name: "Add cluster" }).click();
  await page.getByRole("textbox", { name: "Name" }).fill(name);
  await page.getByRole("dialog").getByRole("button", { name: "Add cluster" }).click();
  return (await page.getByTestId("cluster-key").textContent()) ?? "";
}
