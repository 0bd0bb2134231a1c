import { label, type Label, type Tone } from "../contract/deployment.ts";
import type { Action, Deployment, PlanSummary } from "../contract/rows.ts";
import { counts } from "../contract/deployment.ts";

/** A label with a dot; the dot moves while something is going on. */
export function Badge({ text, tone }: Label) {
  return (
    <span className={`badge tone-${tone}`}>
      <i className={`dot${tone === "run" ? " moving" : ""}`} aria-hidden="true" />
      {text}
    </span>
  );
}

export const StatusBadge = ({ row }: { row: Pick<Deployment, "status" | "phase" | "approved_plan" | "plan_sha256" | "cancel_requested_at" | "error_code"> }) => (
  <Badge {...label(row)} />
);

export function ClusterBadge({ status, revoked }: { status: string; revoked: boolean }) {
  if (revoked) return <Badge text="Revoked" tone="quiet" />;
  const tones: Record<string, Tone> = { ONLINE: "good", OFFLINE: "bad", PENDING: "wait" };
  const labels: Record<string, string> = { ONLINE: "Online", OFFLINE: "Offline", PENDING: "Waiting for agent" };
  return <Badge text={labels[status] ?? status} tone={tones[status] ?? "quiet"} />;
}

export const ActionTag = ({ action }: { action: Action }) => <span className={`tag tag-${action}`}>{action}</span>;

/** `+2 ~1 −3`, spelled out for who does not see it. */
export function Counts({ summary }: { summary: PlanSummary | null }) {
  const found = counts(summary);
  if (summary && found.length === 0) return <span className="quiet">No changes</span>;
  return (
    <span className="counts">
      {found.map(({ key, sign, n, word }) => (
        <span key={key} className={`count count-${key}`}>
          <span aria-hidden="true">{sign}{n}</span>
          <span className="sr">{n} {word}. </span>
        </span>
      ))}
    </span>
  );
}
