"use client";
import { useState } from "react";
import { applyBegan } from "../contract/deployment.ts";
import type { Problem } from "../contract/problem.ts";
import { DEPLOYMENT_COLUMNS, type Deployment } from "../contract/rows.ts";
import { usePortal } from "../live/session.tsx";
import { Dialog } from "./dialog.tsx";
import { Icon } from "./icon.tsx";
import { ProblemNotice } from "./notice.tsx";

export function CancelButton({ row, onDone }: { row: Deployment; onDone(row: Partial<Deployment> | null): void }) {
  const { client, fail } = usePortal();
  const [confirming, setConfirming] = useState(false);
  const [busy, setBusy] = useState(false);
  const [comment, setComment] = useState("");
  const [found, setFound] = useState<Problem | null>(null);
  if (row.cancel_requested_at) return <button type="button" className="button" disabled>Cancelling…</button>;
  const cancel = async (): Promise<void> => {
    setBusy(true);
    const change = { cancel_requested_at: new Date().toISOString(), ...(comment.trim() ? { cancel_comment: comment.trim() } : {}) };
    const { data, error } = await client.from("deployments").update(change).eq("id", row.id).select(DEPLOYMENT_COLUMNS);
    setBusy(false);
    if (error) {
      setFound(fail(error, "this deployment"));
      return;
    }
    setConfirming(false);
    onDone(((data ?? []) as unknown as Deployment[])[0] ?? null);
  };
  return (
    <>
      <button type="button" className="button bad-quiet" onClick={() => setConfirming(true)}><Icon name="stop" /> Cancel</button>
      {confirming ? (
        <Dialog title="Cancel this deployment?" onClose={() => setConfirming(false)}>
          <form onSubmit={(event) => { event.preventDefault(); void cancel(); }}>
            {found ? <ProblemNotice problem={found} /> : null}
            <p>
              {row.status === "QUEUED" ? "It has not started: nothing was changed."
                : applyBegan(row) ? "Terraform is interrupted. What it has changed so far stays and is in the state; nothing is rolled back."
                : "Terraform is interrupted. Nothing was changed yet."}
            </p>
            <label className="field"><span className="field-title">Comment</span><input value={comment} maxLength={2000} onChange={(event) => setComment(event.target.value)} autoComplete="off" /></label>
            <footer>
              <button type="button" className="button" onClick={() => setConfirming(false)}>Keep running</button>
              <button type="submit" className="button bad" disabled={busy}>{busy ? "Cancelling…" : "Cancel deployment"}</button>
            </footer>
          </form>
        </Dialog>
      ) : null}
    </>
  );
}
