// A plan as rows: the order to read them in, what they mean, and how far the apply got.

import type { AttributeChange, Change, ChangeAction, ChangeStatus, Json } from "../contract/rows.ts";

/** What takes something away comes first: that is what a person must not overlook. */
const ORDER: ChangeAction[] = ["delete", "replace", "forget", "create", "update", "import", "move", "read", "no-op", "truncated"];

export const SIGNS: Record<ChangeAction, { sign: string; word: string; tone: "bad" | "good" | "warn" | "info" | "quiet" }> = {
  delete: { sign: "−", word: "Destroy", tone: "bad" },
  replace: { sign: "±", word: "Replace", tone: "bad" },
  forget: { sign: "○", word: "Forget", tone: "warn" },
  create: { sign: "+", word: "Create", tone: "good" },
  update: { sign: "~", word: "Update", tone: "warn" },
  import: { sign: "↓", word: "Import", tone: "info" },
  move: { sign: "→", word: "Move", tone: "info" },
  read: { sign: "?", word: "Read", tone: "quiet" },
  "no-op": { sign: "·", word: "No change", tone: "quiet" },
  truncated: { sign: "…", word: "More", tone: "quiet" },
};

/** An action of a later contract is shown by its own name. */
export const signOf = (action: string): (typeof SIGNS)[ChangeAction] => SIGNS[action as ChangeAction] ?? { sign: "?", word: action, tone: "quiet" };

export interface Plan {
  /** What will be done, destructive changes first. */
  changes: Change[];
  /** What was found changed outside of Terraform. */
  drift: Change[];
  /** How many more the agent left out. */
  omitted: number;
  destructive: number;
}

export function planOf(rows: readonly Change[], attempt: number): Plan {
  const mine = rows.filter((row) => row.attempt === attempt);
  const marker = mine.find((row) => row.action === "truncated");
  const rank = (row: Change): number => {
    const at = ORDER.indexOf(row.action);
    return at < 0 ? ORDER.length : at;
  };
  const sorted = mine
    .filter((row) => row.action !== "truncated")
    .sort((a, b) => rank(a) - rank(b) || a.position - b.position);
  const changes = sorted.filter((row) => !row.drift);
  const omitted = marker && marker.attributes && !Array.isArray(marker.attributes) ? Number(marker.attributes.omitted) || 0 : 0;
  return {
    changes,
    drift: sorted.filter((row) => row.drift),
    omitted,
    destructive: changes.filter((row) => row.action === "delete" || row.action === "replace").length,
  };
}

export const attributesOf = (change: Change): AttributeChange[] =>
  Array.isArray(change.attributes) ? change.attributes.filter((each) => typeof each === "object" && each !== null && typeof each.path === "string") : [];

export type Shown = { kind: "text"; text: string } | { kind: "masked" } | { kind: "unknown" } | { kind: "absent" };

/** One side of an attribute. A sensitive value is not here at all. */
export function sideOf(attribute: AttributeChange, side: "before" | "after"): Shown {
  const value = attribute[side];
  if (side === "after" && attribute.unknown) return { kind: "unknown" };
  if (attribute.sensitive) return value === null || value === undefined ? { kind: "masked" } : { kind: "masked" };
  if (value === null || value === undefined) return { kind: "absent" };
  return { kind: "text", text: textOf(value) };
}

/** Strings as they are; a JSON document in a string is laid out, so that its difference can be read. */
export function textOf(value: Json): string {
  if (typeof value !== "string") return JSON.stringify(value, null, 2);
  const trimmed = value.trim();
  if (/^[[{]/.test(trimmed)) {
    try {
      return JSON.stringify(JSON.parse(trimmed), null, 2);
    } catch {
      // It only looks like JSON.
    }
  }
  return value;
}

/** Worth a difference by lines: longer than what is compared at a glance. */
export const isLong = (attribute: AttributeChange): boolean => {
  const before = sideOf(attribute, "before");
  const after = sideOf(attribute, "after");
  return before.kind === "text" && after.kind === "text" && (before.text.includes("\n") || after.text.includes("\n") || before.text.length > 120 || after.text.length > 120);
};

export interface Progress {
  total: number;
  done: number;
  failed: number;
  running: number;
}

export function progressOf(changes: readonly Change[]): Progress {
  const work = changes.filter((row) => row.action !== "no-op" && row.action !== "read" && !row.drift);
  const count = (status: ChangeStatus): number => work.filter((row) => row.status === status).length;
  return { total: work.length, done: count("DONE"), failed: count("FAILED"), running: count("RUNNING") };
}
