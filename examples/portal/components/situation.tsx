"use client";
import Link from "next/link";
import { errorAdvice, isUnknown, waitsForApproval } from "../contract/deployment.ts";
import type { Cluster, Deployment } from "../contract/rows.ts";
import * as spec from "../live/spec.ts";
import { useWatch } from "../live/use.ts";
import { Notice } from "./notice.tsx";
import { Ago } from "./time.tsx";

/** What is unusual about a deployment, and what to do. */
export function Situation({ row, cluster, onShowLog }: { row: Deployment; cluster: Cluster | undefined; onShowLog(): void }) {
  const revoked = cluster?.revoked_at != null;
  if (row.status === "QUEUED") {
    if (revoked) return <Notice tone="bad" title="The cluster was revoked.">No agent will ever take this deployment. Cancel it, and <Link href={`/new/?from=${row.id}`}>run it on another cluster</Link>.</Notice>;
    if (row.attempt > 0) return <Notice tone="warn" title="The agent was lost before anything changed.">The deployment is queued again by itself and starts as soon as an agent is free.</Notice>;
    if (cluster && cluster.status !== "ONLINE") {
      return (
        <Notice tone="warn" title={cluster.status === "PENDING" ? "No agent has ever come online in this cluster." : "No agent is online in this cluster."}>
          The deployment waits in the queue. <Link href={`/cluster/?id=${row.cluster_id}`}>Look at the cluster</Link>.
        </Notice>
      );
    }
    return <Turn row={row} />;
  }
  if (isUnknown(row)) {
    return (
      <Notice tone="bad" title="The agent has fallen silent in the middle of the apply.">
        What it has changed is unknown. If it does not come back, the deployment fails as lost in about ten minutes; nothing is repeated by itself. Look at agent {row.claimed_by} and its cluster.
      </Notice>
    );
  }
  if (row.status === "PROCESSING" && cluster && (cluster.status === "OFFLINE" || revoked)) {
    return revoked
      ? <Notice tone="bad" title="The cluster was revoked while this deployment ran.">Its agent cannot report any more. What it changed so far is in its log and in the state.</Notice>
      : <Notice tone="warn" title="The agent's cluster is offline.">The agent has sent no heartbeat for a while. If it comes back, it reports what happened.</Notice>;
  }
  if (row.status === "FAILED") {
    return (
      <div className="failure" role="alert">
        <div className="failure-head">
          <code>{row.error_code ?? "FAILED"}</code>
          <span>{errorAdvice(row.error_code) ?? "The deployment failed."}</span>
        </div>
        {row.error_message ? <pre tabIndex={0} aria-label="Error message">{row.error_message}</pre> : null}
        <div className="failure-actions">
          <button type="button" className="button small" onClick={onShowLog}>Show the log</button>
          {row.error_code === "TEMPLATE_NOT_FOUND" ? <Link className="button small" href={`/new/?cluster=${row.cluster_id}`}>Choose another template</Link>
            : <Link className="button small" href={`/new/?from=${row.id}`}>{row.error_code === "CONFIG_INVALID" ? "Correct the values" : "Run again"}</Link>}
          <span className="quiet">failed <Ago time={row.finished_at} /></span>
        </div>
      </div>
    );
  }
  if (row.status === "CANCELLED" && row.error_message) return <Notice tone="info" title="Cancelled.">{row.error_message}</Notice>;
  return null;
}

/** A stack's deployments run one at a time: what this one waits for. */
function Turn({ row }: { row: Deployment }) {
  const key = `${row.cluster_id}/${row.state_key}`;
  const queue = useWatch(spec.queueOf(row.cluster_id, row.state_key), `queue-${key}`).rows ?? [];
  const held = useWatch(spec.stack(row.cluster_id, row.state_key), `stack-${key}`).rows?.[0];
  if (held?.state_held_by) {
    return <Notice tone="warn" title="The state of this stack is not stored yet.">Agent {held.state_held_by} holds it: nothing runs on the stack until it is stored. <Link href="/stacks/">Look at the stack</Link>.</Notice>;
  }
  const first = queue.find((other) => other.status === "PROCESSING") ?? queue.filter((other) => other.status === "QUEUED" && other.queue_order < row.queue_order).pop();
  if (!first || first.id === row.id) return null;
  return (
    <Notice tone="info" title="It waits for its turn.">
      A stack runs one deployment at a time. Before this one comes <Link href={`/deployment/?id=${first.id}`}>one that {waitsForApproval(first) ? "needs approval" : first.status === "PROCESSING" ? "runs" : "is queued"}</Link>.
    </Notice>
  );
}
