// The one world of all stories, and who acts in it.

import type { Page } from "playwright-core";
import { catalogue, cost, plan, summary } from "./fixtures.ts";
import { ScriptedAgent, type Run } from "./scripted-agent.ts";
import { clusterId, queue } from "./steps.ts";
import { addCluster, openWorld, signUp, visit, type Watched, type World } from "./world.ts";

export const world: World = await openWorld();
/** Everybody who was here: at the end nobody's page may have broken a rule. */
export const visits: Watched[] = [];

export async function open(options: Parameters<typeof visit>[1] = {}): Promise<Watched> {
  const visitor = await visit(world, options);
  visits.push(visitor);
  return visitor;
}

export interface Operator {
  page: Page;
  visitor: Watched;
  cluster: string;
  agent: ScriptedAgent;
  account: { email: string; password: string };
}

/** Somebody with a cluster whose agent is scripted. */
export async function operator(name = "production"): Promise<Operator> {
  const visitor = await open();
  const { page } = visitor;
  const account = await signUp(page);
  const key = await addCluster(page, name);
  const agent = await ScriptedAgent.enrol(world.stack.url, world.stack.anonKey, key);
  await agent.beat();
  await agent.rpc("agent_publish_templates", { templates: catalogue });
  await page.getByRole("dialog").getByText("Online").waitFor();
  await page.getByRole("button", { name: "I have copied the key" }).click();
  return { page, visitor, agent, account, cluster: await clusterId(world, page, name) };
}

/** A plan that waits for its approval. */
export async function waiting(of: Operator, stack: string): Promise<{ deployment: string; run: Run }> {
  const deployment = await queue(world, of.page, of.cluster, { template: "everything", stack, approval: true, variables: { region: "eu-central-1", zones: ["a", "b"], password: "never shown" } });
  const run = await of.agent.claim(deployment);
  await run.log("agent", ["Attempt 1 on agent scripted with terraform 1.11.4.", "terraform init", "terraform plan"]);
  await run.plan(summary, plan);
  await run.report({ cost, cost_status: "PARTIAL" });
  await run.log("agent", ["The plan abab waits for approval."]);
  await run.report({ phase: "APPROVAL" });
  return { deployment, run };
}
