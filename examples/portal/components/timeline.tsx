"use client";
import { isFinal, waitsForApproval } from "../contract/deployment.ts";
import type { Deployment } from "../contract/rows.ts";
import type { Log } from "../live/log.ts";
import { Icon } from "./icon.tsx";
import { Lasting } from "./time.tsx";

interface Step {
  title: string;
  from: number;
  to: number | null;
  state: "done" | "run" | "wait" | "bad" | "quiet";
}

/** Phases with their durations: from the row's times, and from the lines of the log that begin a step. */
export function stepsOf(row: Deployment, log: Log | null): Step[] {
  const time = (text: string | null): number | null => (text === null ? null : Date.parse(text));
  const queued = time(row.created_at)!;
  const claimed = time(row.claimed_at);
  const finished = time(row.finished_at);
  const steps: Step[] = [{ title: "Queue", from: queued, to: claimed ?? finished, state: claimed || finished ? "done" : "wait" }];
  const sections = log?.view.sections ?? [];
  if (claimed && row.status !== "QUEUED") {
    const list = sections.length > 0 ? sections : [{ kind: "prepare", title: "Prepare", began: claimed }];
    list.forEach((section, i) => {
      const next = list[i + 1];
      const from = i === 0 ? claimed : section.began;
      steps.push({ title: section.title, from, to: next ? next.began : finished, state: next || row.status === "SUCCESS" ? "done" : "run" });
    });
    const last = steps[steps.length - 1]!;
    if (row.status === "FAILED") last.state = "bad";
    else if (row.status === "CANCELLED") last.state = "quiet";
    else if (row.phase === "UNKNOWN" || waitsForApproval(row)) last.state = "wait";
  } else if (row.status === "CANCELLED") {
    steps[0]!.state = "quiet";
  }
  return steps;
}

export function Timeline({ row, log }: { row: Deployment; log: Log | null }) {
  const steps = stepsOf(row, log);
  const icons = { done: "check", bad: "close", quiet: "stop", wait: "clock" } as const;
  return (
    <ol className="timeline" aria-label="Phases" tabIndex={0}>
      {steps.map((step, i) => (
        <li key={`${step.title}-${i}`} className={`is-${step.state}`} aria-current={!isFinal(row) && i === steps.length - 1 ? "step" : undefined}>
          <span className="bullet" aria-hidden="true">{step.state === "run" ? <i className="dot moving" /> : <Icon name={icons[step.state]} size={12} />}</span>
          <span className="phase">{step.title}</span>
          <Lasting from={step.from} to={step.to} />
        </li>
      ))}
    </ol>
  );
}
