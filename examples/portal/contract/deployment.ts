// What the columns of a deployment mean to a reader.

import type { Action, ConfigSnapshot, Deployment, PlanSummary } from "./rows.ts";

export type Tone = "good" | "bad" | "warn" | "run" | "wait" | "quiet";

export interface Label {
  text: string;
  tone: Tone;
}

export const isFinal = (row: Pick<Deployment, "status">): boolean =>
  row.status === "SUCCESS" || row.status === "FAILED" || row.status === "CANCELLED";

/** Whether the plan waits for a person. */
export const waitsForApproval = (row: Pick<Deployment, "status" | "phase" | "approved_plan" | "plan_sha256" | "cancel_requested_at">): boolean =>
  row.status === "PROCESSING" && row.phase === "APPROVAL" && row.plan_sha256 !== null && row.approved_plan === null &&
  row.cancel_requested_at === null;

/** The agent fell silent after apply began: what it has changed is unknown. */
export const isUnknown = (row: Pick<Deployment, "status" | "phase">): boolean =>
  row.status === "PROCESSING" && row.phase === "UNKNOWN";

/** Whether apply has begun, so that something may have changed. */
export const applyBegan = (row: Pick<Deployment, "phase">): boolean =>
  ["APPLY", "DESTROY", "OUTPUT", "REPORT", "UNKNOWN"].includes(row.phase ?? "");

const PHASES: Record<string, string> = {
  CLAIMED: "Starting",
  WORKSPACE: "Preparing",
  COST: "Estimating cost",
  INIT: "Initializing",
  PLAN: "Planning",
  APPROVAL: "Needs approval",
  APPLY: "Applying",
  DESTROY: "Destroying",
  OUTPUT: "Reading outputs",
  REPORT: "Finishing",
  UNKNOWN: "Agent silent",
};

/** The one label for a deployment's state. A phase or status of a later contract is shown as it is. */
export function label(row: Pick<Deployment, "status" | "phase" | "approved_plan" | "plan_sha256" | "cancel_requested_at" | "error_code">): Label {
  switch (row.status) {
    case "QUEUED":
      return { text: "Queued", tone: "wait" };
    case "PROCESSING":
      if (row.phase === "UNKNOWN") return { text: PHASES.UNKNOWN!, tone: "warn" };
      if (row.cancel_requested_at) return { text: "Cancelling", tone: "warn" };
      if (row.phase === "APPROVAL") {
        return row.approved_plan ? { text: "Approved", tone: "run" } : { text: PHASES.APPROVAL!, tone: "warn" };
      }
      return { text: PHASES[row.phase ?? ""] ?? row.phase ?? "Running", tone: "run" };
    case "SUCCESS":
      return { text: "Success", tone: "good" };
    case "FAILED":
      return { text: row.error_code === "AGENT_LOST" ? "Agent lost" : "Failed", tone: "bad" };
    case "CANCELLED":
      return { text: "Cancelled", tone: "quiet" };
    default:
      return { text: String(row.status), tone: "quiet" };
  }
}

export const actionOf = (config: ConfigSnapshot): Action => config.action ?? "apply";

/** A short name of what is run: the template's, or the folder of a repository. */
export function subject(config: { template?: string | null; source?: ConfigSnapshot["source"] | null }): string {
  if (config.template) return config.template;
  const source = config.source;
  if (!source) return "unknown";
  const repository = source.git.replace(/\/+$/, "").replace(/\.git$/, "").split("/").pop() || source.git;
  return source.path ? `${repository}/${source.path}` : repository;
}

/** Whose state it works on; a deployment without a name of a stack has a state of its own. */
export const stackName = (config: { stack?: unknown }): string =>
  config.stack === undefined || config.stack === null ? "no stack" : typeof config.stack === "string" ? config.stack : JSON.stringify(config.stack);

/** `+2 ~1 -3`, in the order of Terraform's own summary; only counts that are not 0. */
export function counts(summary: PlanSummary | null): { key: keyof PlanSummary; sign: string; n: number; word: string }[] {
  if (!summary) return [];
  const all: { key: keyof PlanSummary; sign: string; word: string }[] = [
    { key: "add", sign: "+", word: "to add" },
    { key: "change", sign: "~", word: "to change" },
    { key: "remove", sign: "−", word: "to destroy" },
    { key: "import", sign: "↓", word: "to import" },
    { key: "move", sign: "→", word: "to move" },
    { key: "forget", sign: "○", word: "to forget" },
    { key: "drift", sign: "Δ", word: "changed outside" },
  ];
  return all.flatMap((kind) => {
    const n = summary[kind.key] ?? 0;
    return n > 0 ? [{ ...kind, n }] : [];
  });
}

/** What the error codes mean and what to do. The agent's own message comes beside it. */
const ERRORS: Record<string, string> = {
  AGENT_LOST: "The agent stopped answering while it held this deployment. If apply had begun, check the resources before you run it again: nothing is repeated by itself.",
  AGENT_STOPPED: "The agent was stopped and the run did not end in time. Run it again once an agent is online.",
  TERRAFORM_FAILED: "Terraform ended with an error. The first diagnostic is below; the log has the rest.",
  CONFIG_INVALID: "The request cannot be carried out as it is. Correct the values and run it again.",
  TEMPLATE_NOT_FOUND: "The agent does not have this template any more. Choose one that the cluster offers, or add it to the agent.",
  SOURCE_UNAVAILABLE: "The repository could not be reached. The same deployment may work later.",
  SOURCE_INVALID: "The repository, or the requested part of it, does not exist. Correct the address, the ref or the path.",
  STATE_LOCKED: "Another process holds the lock of this state. Wait for it to end, then run again.",
  STATE_NOT_STORED: "The state of an earlier run is not stored in its backend yet. The stack is held until it is.",
  PLAN_CHANGED: "What would be applied is not what was planned. Plan again.",
  DISK_FULL: "The run wrote more than the agent's disk has room for.",
  TIMED_OUT: "A time limit was reached.",
  CLUSTER_REVOKED: "The cluster was revoked while this deployment waited or ran.",
  POLICY_DENIED: "A policy of the agent's operator refused this run.",
  APPROVAL_EXPIRED: "Nobody approved the plan in time. Run it again for a fresh plan.",
  INTERNAL: "The agent or its machine had a fault of its own. If it happens again, check the agent's log.",
};

export const errorAdvice = (code: string | null): string | null => (code ? ERRORS[code] ?? null : null);

/** The same deployment once more, or the destroy of what it made. */
export function again(config: ConfigSnapshot, action?: Action): ConfigSnapshot {
  const copy: ConfigSnapshot = structuredClone(config);
  if (action) copy.action = action;
  return copy;
}
