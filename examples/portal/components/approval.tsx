"use client";
// The decision about a plan. Exactly the plan that is shown is approved; a second decision gets an error.

import { useEffect, useRef, useState } from "react";
import { actionOf, waitsForApproval } from "../contract/deployment.ts";
import type { Problem } from "../contract/problem.ts";
import { DEPLOYMENT_COLUMNS, type Change, type Deployment } from "../contract/rows.ts";
import { usePortal } from "../live/session.tsx";
import { planOf } from "../plan/change.ts";
import { Counts } from "./badge.tsx";
import { CostFigure } from "./cost.tsx";
import { Icon } from "./icon.tsx";
import { Notice, ProblemNotice } from "./notice.tsx";
import { Ago } from "./time.tsx";

const TOO_LATE: Problem = {
  kind: "too-late", retry: false,
  title: "This plan does not wait any more.", advice: "It was decided in another window, or there is a new plan. The page shows the current state.",
};

interface Props {
  row: Deployment;
  changes: readonly Change[];
  attempt: number;
  onDone(row: Partial<Deployment> | null): void;
}

export function Approval({ row, changes, attempt, onDone }: Props) {
  const { client, fail } = usePortal();
  const [comment, setComment] = useState("");
  const [busy, setBusy] = useState<"approve" | "reject" | null>(null);
  const [found, setFound] = useState<Problem | null>(null);
  const [elsewhere, setElsewhere] = useState<string | null>(null);
  const mine = useRef(false);
  const waits = waitsForApproval(row);
  const before = useRef({ waits, plan: row.plan_sha256 });

  useEffect(() => {
    const was = before.current;
    before.current = { waits, plan: row.plan_sha256 };
    if (was.waits && !mine.current) {
      if (!waits) setElsewhere(row.approved_plan ? "This plan was approved in another window." : row.cancel_requested_at ? "This plan was rejected in another window." : "This plan does not wait any more.");
      else if (was.plan !== row.plan_sha256) setElsewhere("A new plan was made. Read it before you decide.");
    }
    if (waits) mine.current = false;
  }, [waits, row.plan_sha256, row.approved_plan, row.cancel_requested_at]);

  const decide = async (what: "approve" | "reject"): Promise<void> => {
    setBusy(what);
    setFound(null);
    mine.current = true;
    const text = comment.trim();
    const change =
      what === "approve"
        ? { approved_plan: row.plan_sha256, ...(text ? { approval_comment: text } : {}) }
        : { cancel_requested_at: new Date().toISOString(), ...(text ? { cancel_comment: text } : {}) };
    // Only while it waits: a rejection that comes too late must not cancel an apply that somebody else has approved.
    const { data, error } = await client.from("deployments").update(change)
      .eq("id", row.id).eq("phase", "APPROVAL").eq("plan_sha256", row.plan_sha256!).is("approved_plan", null).is("cancel_requested_at", null)
      .select(DEPLOYMENT_COLUMNS);
    setBusy(null);
    const [after] = (data ?? []) as unknown as Deployment[];
    if (error) setFound(fail(error, "this deployment"));
    else if (!after) setFound(TOO_LATE);
    onDone(after ?? null);
    if (!after) mine.current = false;
  };

  if (!waits) {
    return (
      <>
        {found ? <ProblemNotice problem={found} /> : elsewhere ? <Notice tone="info" title={elsewhere} /> : null}
        {row.approved_at ? (
          <p className="decided"><Icon name="check" size={14} /> Plan approved <Ago time={row.approved_at} />{row.approval_comment ? <q>{row.approval_comment}</q> : null}</p>
        ) : null}
        {row.cancel_comment ? <p className="decided"><Icon name="close" size={14} /> {row.applied ? "Cancelled" : "Rejected"} <Ago time={row.cancel_requested_at} /><q>{row.cancel_comment}</q></p> : null}
      </>
    );
  }
  const destructive = planOf(changes, attempt).destructive || (row.plan_summary?.remove ?? 0);
  const verb = actionOf(row.config_snapshot) === "destroy" ? "destroy" : "apply";
  return (
    <section className={`approval${destructive > 0 ? " destructive" : ""}`} aria-label="Approval">
      {elsewhere ? <Notice tone="warn" title={elsewhere} /> : null}
      {found ? <ProblemNotice problem={found} /> : null}
      <div className="approval-facts">
        <div>
          <h2>This plan needs your approval</h2>
          <p className="approval-counts"><Counts summary={row.plan_summary} /></p>
          {destructive > 0 ? <p className="destroys"><Icon name="warn" size={14} /> {destructive === 1 ? "One resource is" : `${destructive} resources are`} destroyed or replaced.</p> : null}
          {row.approval_expires_at ? <p className="quiet">It waits until {new Date(row.approval_expires_at).toLocaleString()}.</p> : null}
        </div>
        <CostFigure row={row} />
      </div>
      <label className="field">
        <span className="sr">Comment</span>
        <input value={comment} maxLength={2000} placeholder="Comment (optional)" onChange={(event) => setComment(event.target.value)} autoComplete="off" />
      </label>
      <footer>
        <button type="button" className="button" disabled={busy !== null} onClick={() => void decide("reject")}>{busy === "reject" ? "Rejecting…" : "Reject"}</button>
        <button type="button" className={`button ${destructive > 0 ? "bad" : "primary"}`} disabled={busy !== null} onClick={() => void decide("approve")}>
          {busy === "approve" ? "Approving…" : `Approve and ${verb}`}
        </button>
      </footer>
    </section>
  );
}
