// A plan out of Terraform's output in the log, for agents that write no rows of changes yet: addresses, actions and progress.

import type { Change, ChangeAction } from "../contract/rows.ts";

const PLANNED = /^(\S.*?): (?:Plan to|Drift detected \()\s?(create|update|replace|delete|read|import|move|remove|forget)\)?/;
const PROGRESS = /^(\S.*?): (Creating|Modifying|Destroying|Importing|Provisioning with|Still \w+|Creation complete|Modifications complete|Destruction complete|Import complete|Creation errored|Modifications errored|Destruction errored)(?:.* after ([0-9hms]+))?/;

const ACTIONS: Record<string, ChangeAction> = { remove: "forget" };

const seconds = (text: string | undefined): number | null => {
  if (!text) return null;
  const [, hours, minutes, rest] = /^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?$/.exec(text) ?? [];
  return Number(hours ?? 0) * 3600 + Number(minutes ?? 0) * 60 + Number(rest ?? 0);
};

export interface LogLine {
  text: string;
  time: number;
}

/** Reads the lines of one attempt as they come. */
export class Narration {
  private readonly found = new Map<string, Change>();
  private read = 0;
  private readonly deployment: string;
  private readonly attempt: number;

  constructor(deployment: string, attempt: number) {
    this.deployment = deployment;
    this.attempt = attempt;
  }

  /** Reads the new lines; whether anything changed. */
  take(length: number, line: (index: number) => LogLine): boolean {
    let changed = false;
    for (; this.read < length; this.read++) changed = this.apply(line(this.read)) || changed;
    return changed;
  }

  rows(): Change[] {
    return [...this.found.values()];
  }

  private apply({ text, time }: LogLine): boolean {
    const planned = PLANNED.exec(text);
    if (planned) {
      const [whole, address, action] = planned;
      const drift = whole.includes("Drift detected");
      const key = `${drift ? "drift " : ""}${address}`;
      if (this.found.has(key)) return false;
      this.found.set(key, {
        deployment_id: this.deployment, attempt: this.attempt, position: this.found.size + 1, address: address!,
        resource_type: typeOf(address!), provider: null, action: ACTIONS[action!] ?? (action as ChangeAction), drift,
        attributes: null, status: "PLANNED", started_at: null, seconds: null, error: null,
      });
      return true;
    }
    const match = PROGRESS.exec(text);
    const row = match && this.found.get(match[1]!);
    if (!match || !row) return false;
    const before = row.status;
    const progress = match[2]!;
    let after: Change = row;
    if (/errored$/.test(progress)) after = { ...row, status: "FAILED", seconds: seconds(match[3]) };
    // The first half of a replacement is its destruction: only the creation ends it.
    else if (/complete$/.test(progress) && !(row.action === "replace" && progress.startsWith("Destruction"))) after = { ...row, status: "DONE", seconds: seconds(match[3]) };
    else if (before === "PLANNED") after = { ...row, status: "RUNNING", started_at: new Date(time).toISOString() };
    this.found.set(match[1]!, after);
    return after !== row;
  }
}

/** `module.a.aws_instance.web["x.y"]` is an `aws_instance`. */
export function typeOf(address: string): string | null {
  const bare = address.replace(/\[[^\]]*\]/g, "");
  const parts = bare.split(".").filter((part, i, all) => part !== "module" && all[i - 1] !== "module" && part !== "data");
  return parts.length >= 2 ? parts[0]! : null;
}
