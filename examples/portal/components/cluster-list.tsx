"use client";
import Link from "next/link";
import { useState, type FormEvent } from "react";
import type { Problem } from "../contract/problem.ts";
import type { Cluster } from "../contract/rows.ts";
import { usePortal } from "../live/session.tsx";
import * as spec from "../live/spec.ts";
import { useWatch } from "../live/use.ts";
import { ClusterBadge } from "./badge.tsx";
import { Dialog } from "./dialog.tsx";
import { Icon } from "./icon.tsx";
import { KeyShown } from "./key.tsx";
import { Empty, ProblemNotice, Skeleton } from "./notice.tsx";
import { Ago } from "./time.tsx";

export function ClusterList() {
  const { fail } = usePortal();
  const { rows, error, read } = useWatch(spec.clusters(), "clusters");
  const [adding, setAdding] = useState(false);
  return (
    <>
      <header className="head">
        <h1>Clusters</h1>
        <button type="button" className="button primary" onClick={() => setAdding(true)}><Icon name="plus" /> Add cluster</button>
      </header>
      {error ? <ProblemNotice problem={fail(error, "these clusters")} retry={read} /> : null}
      {rows === null ? (error ? null : <Skeleton />) : rows.length === 0 ? (
        <Empty title="No cluster yet" action={<button type="button" className="button primary" onClick={() => setAdding(true)}>Add your first cluster</button>}>
          A cluster is a place where an agent runs Terraform. It needs no ingress: the agent fetches its work.
        </Empty>
      ) : (
        <div className="table-box">
          <table>
            <thead><tr><th>Name</th><th>Status</th><th>Agent</th><th className="wide-only">Added</th></tr></thead>
            <tbody>
              {rows.map((row) => (
                <tr key={row.id} className="linked">
                  <td><Link className="row-link" href={`/cluster/?id=${row.id}`}>{row.name}</Link></td>
                  <td><ClusterBadge status={row.status} revoked={row.revoked_at !== null} /></td>
                  <td className="quiet">{row.agent_version ?? "—"}</td>
                  <td className="quiet wide-only"><Ago time={row.created_at} /></td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {adding ? <AddCluster onClose={() => setAdding(false)} onAdded={read} /> : null}
    </>
  );
}

/** A name, then the key: it is shown this once. */
function AddCluster({ onClose, onAdded }: { onClose(): void; onAdded(): void }) {
  const { client, fail } = usePortal();
  const [name, setName] = useState("");
  const [busy, setBusy] = useState(false);
  const [found, setFound] = useState<Problem | null>(null);
  const [added, setAdded] = useState<{ id: string; name: string; key: string } | null>(null);
  // Created once: the key can be requested again where only that failed.
  const [row, setRow] = useState<Pick<Cluster, "id" | "name"> | null>(null);

  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    setFound(null);
    let made = row;
    if (!made) {
      const { data, error } = await client.from("clusters").insert({ name: name.trim() }).select("id,name").single();
      if (error) {
        setBusy(false);
        setFound(fail(error, "this cluster"));
        return;
      }
      made = data as Pick<Cluster, "id" | "name">;
      setRow(made);
      onAdded();
    }
    const { data: key, error } = await client.rpc("create_cluster_key", { cluster_id: made.id });
    setBusy(false);
    if (error) setFound(fail(error, "this cluster"));
    else setAdded({ ...made, key: String(key) });
  };

  if (added) {
    return (
      <Dialog title={`Start an agent in ${added.name}`} onClose={onClose} wide sticky>
        <KeyShown cluster={added.id} clusterKey={added.key} onClose={onClose} />
      </Dialog>
    );
  }
  return (
    <Dialog title="Add a cluster" onClose={onClose}>
      <form onSubmit={(event) => void submit(event)}>
        {found ? <ProblemNotice problem={found} /> : null}
        <label className="field">
          <span className="field-title">Name</span>
          <input name="name" required maxLength={100} value={name} onChange={(event) => setName(event.target.value)} placeholder="production" disabled={row !== null} />
          <span className="field-hint">A name for the place where the agent runs.</span>
        </label>
        <footer>
          <button type="button" className="button" onClick={onClose}>Cancel</button>
          <button type="submit" className="button primary" disabled={busy || name.trim() === ""}>{busy ? "Adding…" : row ? "Create its key" : "Add cluster"}</button>
        </footer>
      </form>
    </Dialog>
  );
}
