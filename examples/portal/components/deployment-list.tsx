"use client";
import Link from "next/link";
import { useRouter, useSearchParams } from "next/navigation";
import { useState } from "react";
import { actionOf, isFinal, subject, waitsForApproval, stackName } from "../contract/deployment.ts";
import type { Deployment } from "../contract/rows.ts";
import { usePortal } from "../live/session.tsx";
import * as spec from "../live/spec.ts";
import { useWatch } from "../live/use.ts";
import { ActionTag, Counts, StatusBadge } from "./badge.tsx";
import { Icon } from "./icon.tsx";
import { Empty, ProblemNotice, Skeleton } from "./notice.tsx";
import { Ago, Lasting } from "./time.tsx";

const FILTERS = {
  all: { title: "All", fits: () => true },
  waiting: { title: "Needs approval", fits: waitsForApproval },
  running: { title: "Running", fits: (row: Deployment) => !isFinal(row) },
  failed: { title: "Failed", fits: (row: Deployment) => row.status === "FAILED" },
  success: { title: "Success", fits: (row: Deployment) => row.status === "SUCCESS" },
  cancelled: { title: "Cancelled", fits: (row: Deployment) => row.status === "CANCELLED" },
} as const;
type Filter = keyof typeof FILTERS;

export function DeploymentList() {
  const { fail } = usePortal();
  const router = useRouter();
  const search = useSearchParams();
  const [limit, setLimit] = useState(spec.PAGE);
  const cluster = search.get("cluster");
  const text = search.get("q") ?? "";
  const wanted = search.get("status") ?? "all";
  const filter: Filter = Object.hasOwn(FILTERS, wanted) ? (wanted as Filter) : "all";
  const clusters = useWatch(spec.clusters(), "clusters");
  const { rows, error, read } = useWatch(spec.deployments(limit, cluster), `deployments-${cluster}-${limit}`);

  const set = (name: string, value: string): void => {
    const next = new URLSearchParams(search);
    if (value === "" || value === "all") next.delete(name);
    else next.set(name, value);
    router.replace(`/deployments/${next.size > 0 ? `?${next}` : ""}`, { scroll: false });
  };
  const names = new Map(clusters.rows?.map((row) => [row.id, row.name]));
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const matching = rows?.filter((row) => {
    const haystack = `${subject(row.config_snapshot)} ${stackName(row.config_snapshot)} ${actionOf(row.config_snapshot)} ${names.get(row.cluster_id) ?? ""} ${row.id} ${row.error_code ?? ""}`.toLowerCase();
    return words.every((word) => haystack.includes(word));
  });
  const shown = matching?.filter(FILTERS[filter].fits);

  return (
    <>
      <header className="head">
        <h1>Deployments</h1>
      </header>
      <div className="filters">
        <div className="segments" role="group" aria-label="Status">
          {(Object.keys(FILTERS) as Filter[]).map((name) => {
            const n = matching?.filter(FILTERS[name].fits).length ?? 0;
            return (
              <button key={name} type="button" aria-pressed={name === filter} onClick={() => set("status", name)}>
                {FILTERS[name].title}
                {n > 0 && name !== "all" ? <span className={`pill${name === "waiting" ? " attention" : ""}`}>{n}</span> : null}
              </button>
            );
          })}
        </div>
        <label className="search">
          <Icon name="search" />
          <span className="sr">Filter deployments</span>
          <input type="search" placeholder="Template, stack, id…" defaultValue={text} onChange={(event) => set("q", event.target.value)} />
        </label>
        <select aria-label="Cluster" value={cluster ?? ""} onChange={(event) => set("cluster", event.target.value)}>
          <option value="">All clusters</option>
          {clusters.rows?.map((row) => <option key={row.id} value={row.id}>{row.name}</option>)}
        </select>
      </div>
      {error ? <ProblemNotice problem={fail(error, "these deployments")} retry={read} /> : null}
      {shown === undefined ? (error ? null : <Skeleton rows={8} />) : shown.length === 0 ? (
        rows!.length === 0 && !cluster ? (
          <Empty title="No deployment yet" action={clusters.rows?.length === 0 ? <Link className="button primary" href="/clusters/">Add a cluster first</Link> : <Link className="button primary" href="/new/">Deploy something</Link>}>
            A deployment runs Terraform in one of your clusters. You see its plan before anything changes.
          </Empty>
        ) : <Empty title="Nothing matches">Try a shorter text, or another status.</Empty>
      ) : (
        <div className="table-box">
          <table className="cards">
            <thead>
              <tr><th>Deployment</th><th>Status</th><th>Changes</th><th className="wide-only">Cluster</th><th className="wide-only">Duration</th><th>Queued</th></tr>
            </thead>
            <tbody>{shown.map((row) => <Row key={row.id} row={row} cluster={names.get(row.cluster_id)} />)}</tbody>
          </table>
        </div>
      )}
      {rows && rows.length >= limit ? <button type="button" className="button more" onClick={() => setLimit(limit + spec.PAGE)}>Show older deployments</button> : null}
      <p className="sr" role="status">{shown ? `${shown.length} deployments` : ""}</p>
    </>
  );
}

function Row({ row, cluster }: { row: Deployment; cluster: string | undefined }) {
  const config = row.config_snapshot;
  return (
    <tr className="linked">
      <td>
        <Link className="row-link" href={`/deployment/?id=${row.id}`}>
          {subject(config)}<span className="quiet"> / {stackName(config)}</span>
        </Link>{" "}
        <ActionTag action={actionOf(config)} />
      </td>
      <td><StatusBadge row={row} /></td>
      <td>{row.plan_summary ? <Counts summary={row.plan_summary} /> : <span className="quiet">—</span>}</td>
      <td className="quiet wide-only">{cluster ?? "—"}</td>
      <td className="quiet wide-only">{row.claimed_at ? <Lasting from={row.claimed_at} to={row.finished_at} /> : "—"}</td>
      <td className="quiet"><Ago time={row.created_at} /></td>
    </tr>
  );
}
