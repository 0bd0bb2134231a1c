"use client";
import Link from "next/link";
import { useState } from "react";
import { label, subject } from "../contract/deployment.ts";
import type { Problem } from "../contract/problem.ts";
import type { Stack } from "../contract/rows.ts";
import { usePortal } from "../live/session.tsx";
import * as spec from "../live/spec.ts";
import { useWatch } from "../live/use.ts";
import { ActionTag, Badge } from "./badge.tsx";
import { Dialog } from "./dialog.tsx";
import { Icon } from "./icon.tsx";
import { Empty, ProblemNotice, Skeleton } from "./notice.tsx";
import { Ago } from "./time.tsx";

export function StackList() {
  const { fail } = usePortal();
  const clusters = useWatch(spec.clusters(), "clusters");
  const { rows, error, read } = useWatch(spec.stacks(), "stacks");
  const names = new Map(clusters.rows?.map((row) => [row.id, row.name]));
  const [held, setHeld] = useState<Stack | null>(null);
  return (
    <>
      <header className="head"><h1>Stacks</h1></header>
      {error ? <ProblemNotice problem={fail(error, "these stacks")} retry={read} /> : null}
      {rows === null ? (error ? null : <Skeleton />) : rows.length === 0 ? (
        <Empty title="No stack yet" action={<Link className="button primary" href="/new/">Deploy something</Link>}>
          A stack is one set of resources with its own Terraform state. The first deployment of a template makes one.
        </Empty>
      ) : (
        <div className="table-box">
          <table className="cards">
            <thead><tr><th>Stack</th><th>Last run</th><th>Resources</th><th className="wide-only">Cluster</th><th className="wide-only">Last success</th><th><span className="sr">Actions</span></th></tr></thead>
            <tbody>
              {rows.map((row) => (
                <tr key={`${row.cluster_id}/${row.state_key}`}>
                  <td>
                    <Link className="name" href={`/deployments/?${new URLSearchParams({ cluster: row.cluster_id, q: `${subject(row)} ${row.stack ?? ""}`.trim() })}`}>
                      <strong>{subject(row)}</strong>
                      <span className="quiet"> / {row.stack ?? "no stack"}</span>
                    </Link>
                    {row.state_held_by ? (
                      <button type="button" className="held" onClick={() => setHeld(row)}><Icon name="lock" size={13} /> State held</button>
                    ) : null}
                  </td>
                  <td>
                    {row.last_deployment_id && row.last_status ? (
                      <Link className="plain" href={`/deployment/?id=${row.last_deployment_id}`}>
                        <Badge {...label({ status: row.last_status, phase: null, approved_plan: null, plan_sha256: null, cancel_requested_at: null, error_code: null })} />
                        {row.last_action ? <ActionTag action={row.last_action} /> : null}
                      </Link>
                    ) : <span className="quiet">—</span>}
                  </td>
                  <td className="tabular">{row.resources ?? <span className="quiet">—</span>}{row.resources === null ? null : <span className="narrow-only quiet"> resource{row.resources === 1 ? "" : "s"}</span>}</td>
                  <td className="quiet wide-only">{names.get(row.cluster_id) ?? "—"}</td>
                  <td className="quiet wide-only">{row.last_success_id ? <Link href={`/deployment/?id=${row.last_success_id}`}><Ago time={row.last_success_at} /></Link> : "never"}</td>
                  <td className="actions">{row.last_deployment_id ? <Link className="button small" href={`/new/?from=${row.last_deployment_id}`}>Run again</Link> : null}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {held ? <Held stack={held} onClose={() => setHeld(null)} onDone={() => { setHeld(null); read(); }} /> : null}
    </>
  );
}

/** A state that is not stored yet: who has it, and the way out where that agent never comes back. */
function Held({ stack, onClose, onDone }: { stack: Stack; onClose(): void; onDone(): void }) {
  const { client, fail } = usePortal();
  const [typed, setTyped] = useState("");
  const [found, setFound] = useState<Problem | null>(null);
  const discard = async (): Promise<void> => {
    const { error } = await client.rpc("discard_held_state", { cluster_id: stack.cluster_id, state_key: stack.state_key, confirm: typed });
    if (error) setFound(fail(error, "this stack"));
    else onDone();
  };
  return (
    <Dialog title="A state is not stored yet" onClose={onClose}>
      <form onSubmit={(event) => { event.preventDefault(); void discard(); }}>
        {found ? <ProblemNotice problem={found} /> : null}
        <p>Agent <strong>{stack.state_held_by}</strong> holds the newest state of this stack since <Ago time={stack.state_held_since} />. Nothing runs on the stack until it is stored.</p>
        {stack.state_held_reason ? <pre className="reason">{stack.state_held_reason}</pre> : null}
        <p>Start that agent again, and it stores the state by itself. If it never comes back, you can discard the state: resources that it made since the last stored state are then unknown to Terraform, and you have to import or remove them by hand.</p>
        <label className="field">
          <span className="field-title">Type <code>{stack.state_key}</code> to discard the held state</span>
          <input value={typed} onChange={(event) => setTyped(event.target.value)} autoComplete="off" />
        </label>
        <footer>
          <button type="button" className="button" onClick={onClose}>Keep waiting</button>
          <button type="submit" className="button bad" disabled={typed !== stack.state_key}>Discard the state</button>
        </footer>
      </form>
    </Dialog>
  );
}
