// The programs that a story in the browser needs: the local stack, agents, the portal's server. Each ends with the test.

import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";

export const repository = path.resolve(import.meta.dirname, "../../../..");
const target = process.env.CARGO_TARGET_DIR ?? path.join(repository, "target");

function program(name: string): string {
  const file = path.join(target, "debug", name);
  if (!existsSync(file)) throw new Error(`${file} is missing: run scripts/test-portal.sh, which builds it`);
  return file;
}

const running = new Set<ChildProcess>();

export interface Stack {
  url: string;
  anonKey: string;
  serviceKey: string;
  database: string;
  stop(): Promise<void>;
}

/** A stack of its own, on free ports. */
export async function startStack(): Promise<Stack> {
  const child = spawn(program("supabase-local"), ["--port", "0", "--db-port", "0"], { stdio: ["ignore", "pipe", "inherit"] });
  running.add(child);
  const values = new Map<string, string>();
  for await (const line of createInterface({ input: child.stdout! })) {
    const match = /^\s*([A-Za-z_ ]+): (.+)$/.exec(line);
    if (match) values.set(match[1]!.trim(), match[2]!.trim());
    if (match?.[1]?.trim() === "Secret key") break;
  }
  const value = (name: string): string => {
    const found = values.get(name);
    if (!found) throw new Error(`the local stack did not print its ${name}`);
    return found;
  };
  return { url: value("API URL"), anonKey: value("anon key"), serviceKey: value("service_role key"), database: value("DB URL"), stop: () => end(child, "SIGTERM") };
}

export interface Agent {
  log(): string;
  kill(): Promise<void>;
  stop(): Promise<void>;
}

/** An agent as a customer starts it: with a URL, a key, and the key of its cluster. */
export function startAgent(options: { url: string; anonKey: string; key: string; name: string; templates: string; env?: Record<string, string> }): Agent {
  const home = mkdtempSync(path.join(tmpdir(), "tendril-portal-agent-"));
  const log = path.join(home, "agent.log");
  const file = openSync(log, "a");
  const child = spawn(program("tendril-agent"), [], {
    env: {
      PATH: `${path.join(repository, ".tools/bin")}:${process.env.PATH}`,
      HOME: home,
      SUPABASE_URL: options.url,
      SUPABASE_PUBLISHABLE_KEY: options.anonKey,
      TENDRIL_AGENT_TOKEN: options.key,
      TENDRIL_TEMPLATES_DIR: options.templates,
      TENDRIL_WORK_DIR: path.join(home, "work"),
      TENDRIL_STATE_DIR: path.join(home, "state"),
      TENDRIL_AGENT_NAME: options.name,
      // Its directory is root's alone where the tests are root's, and users of runs do not reach it.
      TENDRIL_SLOT_UID_BASE: "off",
      TENDRIL_START_SPREAD: "0s",
      TENDRIL_SHUTDOWN_GRACE: "1s",
      NO_COLOR: "1",
      ...options.env,
    } as Record<string, string> as NodeJS.ProcessEnv,
    stdio: ["ignore", file, file],
  });
  running.add(child);
  const gone = (signal: NodeJS.Signals) => async (): Promise<void> => {
    await end(child, signal);
    // What runs a job does not end with an agent that is killed.
    killAll(home);
    rmSync(home, { recursive: true, force: true, maxRetries: 5 });
  };
  return { log: () => readFileSync(log, "utf8"), kill: gone("SIGKILL"), stop: gone("SIGTERM") };
}

/** Kills every process that has this in its command line. */
function killAll(part: string): void {
  const pids = existsSync("/proc") ? readdirSync("/proc").filter((name) => /^\d+$/.test(name)) : [];
  for (const pid of pids) {
    try {
      if (readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(part)) process.kill(Number(pid), "SIGKILL");
    } catch {
      // It has ended meanwhile.
    }
  }
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  running.delete(child);
  if (child.exitCode !== null || child.signalCode !== null) return;
  const closed = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  child.kill(signal);
  const hurry = setTimeout(() => child.kill("SIGKILL"), 10_000);
  await closed;
  clearTimeout(hurry);
}

export async function endAll(): Promise<void> {
  await Promise.all([...running].map((child) => end(child, "SIGTERM")));
}
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/** A folder of templates with files of ours. */
export function templates(files: Record<string, string>): string {
  const dir = mkdtempSync(path.join(tmpdir(), "tendril-portal-templates-"));
  for (const [name, text] of Object.entries(files)) {
    const file = path.join(dir, name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, text);
  }
  return dir;
}

