"use client";
import Link from "next/link";
import { useCallback, useEffect, useState } from "react";
import { problem, type Problem } from "../contract/problem.ts";
import type { Cluster, KeyStatus } from "../contract/rows.ts";
import { usePortal } from "../live/session.tsx";
import * as spec from "../live/spec.ts";
import { useWatch } from "../live/use.ts";
import { Badge, ClusterBadge } from "./badge.tsx";
import { Dialog } from "./dialog.tsx";
import { Icon } from "./icon.tsx";
import { KeyShown } from "./key.tsx";
import { Notice, ProblemNotice, ProblemPage, Skeleton } from "./notice.tsx";
import { Ago } from "./time.tsx";

type Act = "rotate" | "create" | "promote" | "revoke-keys" | "revoke";

export function ClusterPage({ id }: { id: string }) {
  const { fail } = usePortal();
  const { rows, error, read } = useWatch(spec.cluster(id), `cluster-${id}`);
  const row = rows?.[0];
  const state = useWatch(spec.clusterState(id), `state-${id}`).rows?.[0];
  const back = { href: "/clusters/", text: "All clusters" };
  if (error && !row) {
    const found = fail(error, "cluster");
    return found.kind === "not-found" ? <ProblemPage problem={found} back={back} /> : <ProblemNotice problem={found} retry={read} />;
  }
  if (rows === null) return <Skeleton />;
  if (!row) return <ProblemPage problem={problem({ code: "PGRST116" }, "cluster")} back={back} />;
  const revoked = row.revoked_at !== null;
  return (
    <>
      <nav className="crumbs" aria-label="Breadcrumb"><Link href="/clusters/">Clusters</Link><Icon name="chevron" size={12} /></nav>
      <header className="head">
        <h1>{row.name} <ClusterBadge status={row.status} revoked={revoked} /></h1>
        {revoked ? null : <Link className="button" href={`/new/?cluster=${row.id}`}><Icon name="plus" /> New deployment</Link>}
      </header>
      {revoked ? (
        <Notice tone="warn" title="This cluster was revoked.">
          Its agent reads and writes nothing any more, and nothing can be queued here. Revocation is final: <Link href="/clusters/">add a new cluster</Link> instead.
        </Notice>
      ) : null}
      <dl className="facts">
        <div><dt>Agent</dt><dd>{row.agent_version ?? "none yet"}</dd></div>
        <div><dt>Last seen</dt><dd>{state ? <Ago time={state.last_seen_at} /> : "…"}</dd></div>
        <div><dt>Running</dt><dd>{state ? `${state.jobs} deployment${state.jobs === 1 ? "" : "s"}` : "…"}</dd></div>
        <div><dt>Added</dt><dd><Ago time={row.created_at} /></dd></div>
        <div><dt>Id</dt><dd><code>{row.id}</code></dd></div>
      </dl>
      <AgentList cluster={row.id} />
      <Keys cluster={row} onChanged={read} />
      <p className="below"><Link href={`/deployments/?cluster=${row.id}`}>Deployments of this cluster</Link></p>
    </>
  );
}

function AgentList({ cluster }: { cluster: string }) {
  const { rows } = useWatch(spec.agents(cluster), `agents-${cluster}`);
  if (!rows || rows.length === 0) return null;
  return (
    <section>
      <h2>Agents</h2>
      <div className="table-box">
        <table>
          <thead><tr><th>Name</th><th>Status</th><th>Version</th><th>Last seen</th><th className="wide-only">State</th></tr></thead>
          <tbody>
            {rows.map((row) => (
              <tr key={row.name}>
                <td>{row.name}</td>
                <td>{row.status === "REFUSED" ? <Badge text="Refused" tone="bad" /> : row.is_live ? <Badge text={row.jobs > 0 ? `Running ${row.jobs}` : "Ready"} tone="good" /> : <Badge text="Gone" tone="quiet" />}{row.refused_reason ? <p className="field-fault">{row.refused_reason}</p> : null}</td>
                <td className="quiet">{row.version ?? "—"}</td><td><Ago time={row.last_seen_at} /></td>
                <td className="quiet wide-only">{row.state_backend ?? "—"}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function Keys({ cluster, onChanged }: { cluster: Cluster; onChanged(): void }) {
  const { client, fail } = usePortal();
  const [keys, setKeys] = useState<KeyStatus | null>(null);
  const [act, setAct] = useState<Act | null>(null);
  const [shown, setShown] = useState<string | null>(null);
  const [found, setFound] = useState<Problem | null>(null);
  const { id, status } = cluster;
  const revoked = cluster.revoked_at !== null;

  const load = useCallback(async () => {
    const { data, error } = await client.rpc("cluster_key_status", { cluster_id: id });
    if (error) setFound(fail(error, "these keys"));
    else setKeys(data as KeyStatus);
  }, [client, fail, id]);
  useEffect(() => {
    void load();
    const timer = setInterval(() => void load(), 10_000);
    return () => clearInterval(timer);
  }, [load, status]);

  const carryOut = async (what: Act): Promise<void> => {
    setFound(null);
    const unused = keys?.next != null && keys.next.last_used_at === null;
    const { data, error } =
      what === "revoke"
        ? await client.from("clusters").update({ revoked_at: new Date().toISOString() }).eq("id", id).select("id").single()
        : what === "promote"
          ? await client.rpc("promote_cluster_key", { cluster_id: id, unused })
          : await client.rpc({ rotate: "rotate_cluster_key", create: "create_cluster_key", "revoke-keys": "revoke_cluster_key" }[what], { cluster_id: id });
    setAct(null);
    if (error) setFound(fail(error, "this cluster"));
    else if (what === "rotate" || what === "create") setShown(String(data));
    onChanged();
    void load();
  };

  return (
    <section>
      <h2>Keys</h2>
      {found ? <ProblemNotice problem={found} /> : null}
      <div className="table-box">
        <table>
          <thead><tr><th>Key</th><th>Created</th><th>Last used</th><th><span className="sr">Actions</span></th></tr></thead>
          <tbody>
            {keys?.current ? (
              <tr><td>Current</td><td><Ago time={keys.current.created_at} /></td><td><Ago time={keys.current.last_used_at} /></td>
                <td className="actions">{revoked || keys.next ? null : <button type="button" className="button small" onClick={() => setAct("rotate")}><Icon name="again" /> Rotate</button>}</td></tr>
            ) : (
              <tr><td className="quiet" colSpan={3}>{keys ? "This cluster has no key: no agent can enrol." : "…"}</td>
                <td className="actions">{keys && !revoked ? <button type="button" className="button small" onClick={() => void carryOut("create")}><Icon name="key" /> Create key</button> : null}</td></tr>
            )}
            {keys?.next ? (
              <tr><td>Next</td><td><Ago time={keys.next.created_at} /></td><td><Ago time={keys.next.last_used_at} /></td>
                <td className="actions">{revoked ? null : <button type="button" className="button small primary" onClick={() => setAct("promote")}>Make it the only key</button>}</td></tr>
            ) : null}
          </tbody>
        </table>
      </div>
      {revoked ? null : (
        <div className="danger">
          <div><strong>Take the keys away</strong><p>No agent can enrol again until you create a new key. A running one goes on for 15 minutes at most.</p></div>
          <button type="button" className="button" disabled={!keys?.current} onClick={() => setAct("revoke-keys")}>Take keys away</button>
          <div><strong>Revoke the cluster</strong><p>Shuts its agents out at once. This is final.</p></div>
          <button type="button" className="button bad" onClick={() => setAct("revoke")}>Revoke cluster</button>
        </div>
      )}
      {act ? <Confirm act={act} cluster={cluster} keys={keys} onClose={() => setAct(null)} onConfirm={() => carryOut(act)} /> : null}
      {shown ? (
        <Dialog title={`New key of ${cluster.name}`} onClose={() => setShown(null)} wide sticky>
          <KeyShown cluster={id} clusterKey={shown} onClose={() => setShown(null)} waits={false} />
        </Dialog>
      ) : null}
    </section>
  );
}

function Confirm({ act, cluster, keys, onClose, onConfirm }: { act: Act; cluster: Cluster; keys: KeyStatus | null; onClose(): void; onConfirm(): Promise<void> }) {
  const [typed, setTyped] = useState("");
  const [busy, setBusy] = useState(false);
  const unused = keys?.next != null && keys.next.last_used_at === null;
  const words: Record<Act, { title: string; text: string; button: string; bad: boolean }> = {
    create: { title: "", text: "", button: "", bad: false },
    rotate: { title: "Rotate the key", text: "A next key is made beside the current one. Both work until you make the next one the only key: give it to the agent first.", button: "Create next key", bad: false },
    promote: {
      title: "Make the next key the only one",
      text: unused ? "No agent has used the next key yet: the current key stops working, and an agent that still has it loses access." : "The current key stops working. The agent uses the next one already.",
      button: unused ? "Do it all the same" : "Make it the only key", bad: unused,
    },
    "revoke-keys": { title: "Take the keys away", text: "Both keys stop working. A running agent goes on for 15 minutes at most.", button: "Take keys away", bad: true },
    revoke: { title: `Revoke ${cluster.name}`, text: "Its agents read and write nothing from now on, and queued deployments stay where they are. This cannot be taken back.", button: "Revoke cluster", bad: true },
  };
  const { title, text, button, bad } = words[act];
  const blocked = act === "revoke" && typed !== cluster.name;
  return (
    <Dialog title={title} onClose={onClose}>
      <form onSubmit={(event) => {
        event.preventDefault();
        setBusy(true);
        void onConfirm();
      }}>
        <p>{text}</p>
        {act === "revoke" ? (
          <label className="field">
            <span className="field-title">Type <code>{cluster.name}</code> to confirm</span>
            <input value={typed} onChange={(event) => setTyped(event.target.value)} autoComplete="off" />
          </label>
        ) : null}
        <footer>
          <button type="button" className="button" onClick={onClose}>Cancel</button>
          <button type="submit" className={`button ${bad ? "bad" : "primary"}`} disabled={busy || blocked}>{button}</button>
        </footer>
      </form>
    </Dialog>
  );
}
