// An agent that a test controls, through the same functions and rights as a real one: it enrols with the cluster's key, claims,
// reports and writes logs. With it a test can stop at any state.

import { randomUUID } from "node:crypto";

export interface PlannedChange {
  position: number;
  address: string;
  action: string;
  resource_type?: string;
  provider?: string;
  drift?: boolean;
  attributes?: unknown;
}

export class ScriptedAgent {
  private readonly url: string;
  private readonly anonKey: string;
  private readonly token: string;
  readonly name: string;

  private constructor(url: string, anonKey: string, token: string, name: string) {
    this.url = url;
    this.anonKey = anonKey;
    this.token = token;
    this.name = name;
  }

  static async enrol(url: string, anonKey: string, key: string, name = "scripted"): Promise<ScriptedAgent> {
    const answer = await fetch(`${url}/functions/v1/agent-token`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ key }) });
    const { access_token: token } = (await answer.json()) as { access_token?: string };
    if (!token) throw new Error(`the key was not taken: ${answer.status}`);
    return new ScriptedAgent(url, anonKey, token, name);
  }

  async request(method: string, path: string, body?: unknown, prefer = "return=representation"): Promise<unknown> {
    const answer = await fetch(`${this.url}/rest/v1/${path}`, {
      method,
      headers: { apikey: this.anonKey, Authorization: `Bearer ${this.token}`, "Content-Type": "application/json", Prefer: prefer },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text === "" ? null : JSON.parse(text);
  }

  rpc(name: string, args: object): Promise<unknown> {
    return this.request("POST", `rpc/${name}`, args);
  }

  beat(tokens: string[] = []): Promise<unknown> {
    return this.rpc("agent_heartbeat", { version: "9.9.9", claim_tokens: tokens, agent: this.name });
  }

  /** Claims a queued deployment. */
  async claim(deployment: string): Promise<Run> {
    const token = randomUUID();
    const rows = (await this.request("PATCH", `deployments?id=eq.${deployment}&status=eq.QUEUED&select=id,attempt`, { status: "PROCESSING", claim_token: token, claimed_by: this.name })) as { attempt: number }[];
    if (rows.length !== 1) throw new Error(`deployment ${deployment} cannot be claimed`);
    return new Run(this, deployment, token, rows[0]!.attempt);
  }
}

export class Run {
  private seq = 0;
  readonly agent: ScriptedAgent;
  readonly deployment: string;
  readonly token: string;
  readonly attempt: number;

  constructor(agent: ScriptedAgent, deployment: string, token: string, attempt: number) {
    this.agent = agent;
    this.deployment = deployment;
    this.token = token;
    this.attempt = attempt;
  }

  async report(change: object): Promise<void> {
    await this.agent.request("PATCH", `deployments?id=eq.${this.deployment}&select=id`, { ...change, claim_token: this.token });
  }

  /** Chunks of lines; a chunk may be left out, as if it was lost. */
  async log(stream: "stdout" | "stderr" | "agent", chunks: string[], options: { skip?: number; ts?: string } = {}): Promise<void> {
    this.seq += options.skip ?? 0;
    const rows = chunks.map((text) => ({
      deployment_id: this.deployment, attempt: this.attempt, seq: ++this.seq, stream, log_chunk: text.endsWith("\n") ? text : `${text}\n`, ts: options.ts ?? new Date().toISOString(),
    }));
    await this.agent.request("POST", "deployment_logs?on_conflict=deployment_id,attempt,seq", rows, "resolution=ignore-duplicates,return=minimal");
  }

  async plan(summary: object, changes: PlannedChange[]): Promise<void> {
    await this.report({ phase: "PLAN" });
    for (let i = 0; i < changes.length; i += 1000) await this.agent.rpc("agent_store_changes", { deployment_id: this.deployment, claim_token: this.token, changes: changes.slice(i, i + 1000) });
    await this.report({ plan_summary: summary, plan_sha256: "ab".repeat(32) });
  }

  changes(changes: object[]): Promise<unknown> {
    return this.agent.rpc("agent_report_changes", { deployment_id: this.deployment, claim_token: this.token, changes });
  }

  async end(status: "SUCCESS" | "FAILED" | "CANCELLED", more: object = {}): Promise<void> {
    await this.report({ status, log_count: this.seq, ...more });
  }
}
