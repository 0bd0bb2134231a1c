"use client";
import Link from "next/link";
import type { ReactNode } from "react";
import type { Problem } from "../contract/problem.ts";
import { Icon } from "./icon.tsx";

export type NoticeTone = "bad" | "warn" | "info" | "good";

export function Notice({ tone, title, children, actions }: { tone: NoticeTone; title: string; children?: ReactNode; actions?: ReactNode }) {
  return (
    <div className={`notice notice-${tone}`} role={tone === "bad" ? "alert" : "status"}>
      <Icon name={tone === "good" ? "check" : tone === "info" ? "info" : "warn"} />
      <div className="notice-text">
        <strong>{title}</strong>
        {children ? <div>{children}</div> : null}
      </div>
      {actions ? <div className="notice-actions">{actions}</div> : null}
    </div>
  );
}

/** What went wrong, and what to do. */
export const ProblemNotice = ({ problem, retry }: { problem: Problem; retry?: (() => void) | undefined }) => (
  <Notice
    tone={problem.retry ? "warn" : "bad"}
    title={problem.title}
    actions={retry && problem.retry ? <button type="button" className="button small" onClick={retry}>Try again</button> : undefined}
  >
    {problem.advice}
  </Notice>
);

/** A whole page that cannot be shown. */
export function ProblemPage({ problem, back }: { problem: Problem; back: { href: string; text: string } }) {
  return (
    <div className="empty">
      <Icon name="warn" size={28} />
      <h1>{problem.title}</h1>
      <p>{problem.advice}</p>
      <Link className="button" href={back.href}>{back.text}</Link>
    </div>
  );
}

export function Empty({ title, children, action }: { title: string; children?: ReactNode; action?: ReactNode }) {
  return (
    <div className="empty">
      <h2>{title}</h2>
      {children ? <p>{children}</p> : null}
      {action}
    </div>
  );
}

export function Skeleton({ rows = 5 }: { rows?: number }) {
  return (
    <div className="skeleton" role="status" aria-label="Loading">
      {Array.from({ length: rows }, (_, i) => <span key={i} />)}
    </div>
  );
}
