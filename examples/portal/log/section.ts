// A log divided by phase. The agent announces each step on its own stream: `terraform plan`.

import type { Stream } from "./store.ts";

export type SectionKind = "prepare" | "init" | "plan" | "approval" | "apply" | "destroy" | "output" | "step";

export interface Section {
  kind: SectionKind;
  title: string;
  /** Index of its first line. */
  first: number;
  /** Milliseconds since the epoch. */
  began: number;
}

const STEP = /^(terraform|tofu|\S*terraform\S*) ([a-z]+)$/;
const TITLES: Record<string, [SectionKind, string]> = {
  init: ["init", "Initialize"],
  plan: ["plan", "Plan"],
  apply: ["apply", "Apply"],
  destroy: ["destroy", "Destroy"],
  output: ["output", "Outputs"],
};

/** The section that begins with this line, or null where the one before continues. */
export function sectionAt(index: number, text: string, stream: Stream, time: number): Section | null {
  if (stream === "agent") {
    const step = STEP.exec(text)?.[2];
    if (step !== undefined) {
      const [kind, title] = TITLES[step] ?? ["step", step];
      return { kind, title, first: index, began: time };
    }
    if (/^The plan \S+ waits for approval/.test(text)) return { kind: "approval", title: "Approval", first: index, began: time };
  }
  return index === 0 ? { kind: "prepare", title: "Prepare", first: 0, began: time } : null;
}

/** Lines that Terraform prints for each resource that it only reads. */
const REFRESH = /: (Refreshing state\.\.\.|Refreshing\.\.\.|Refresh complete|Reading\.\.\.|Read complete after|Still reading\.\.\.)/;
export const isRefresh = (text: string): boolean => REFRESH.test(text);

/** Whether a section is shown open before anybody decides. What went wrong is what one came to read. */
export function opensByItself(kind: SectionKind, isLast: boolean, failed: boolean): boolean {
  if (isLast) return true;
  return !failed && kind !== "prepare" && kind !== "init" && kind !== "step";
}
