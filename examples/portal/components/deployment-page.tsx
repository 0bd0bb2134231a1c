"use client";
import Link from "next/link";
import { useRouter, useSearchParams } from "next/navigation";
import { useEffect, useMemo, useRef, useState } from "react";
import { actionOf, applyBegan, isFinal, subject, waitsForApproval, stackName } from "../contract/deployment.ts";
import { problem } from "../contract/problem.ts";
import type { Change, Deployment } from "../contract/rows.ts";
import { useLog, type Log } from "../live/log.ts";
import { usePortal } from "../live/session.tsx";
import * as spec from "../live/spec.ts";
import { useWatch } from "../live/use.ts";
import { Narration } from "../plan/narration.ts";
import { ActionTag, Counts, StatusBadge } from "./badge.tsx";
import { Approval } from "./approval.tsx";
import { CancelButton } from "./cancel.tsx";
import { Configuration, Outputs } from "./configuration.tsx";
import { Icon } from "./icon.tsx";
import { LogViewer } from "./log-viewer.tsx";
import { Empty, ProblemNotice, ProblemPage, Skeleton } from "./notice.tsx";
import { PlanTable } from "./plan-table.tsx";
import { Situation } from "./situation.tsx";
import { Panel, Tabs } from "./tabs.tsx";
import { Ago, Lasting } from "./time.tsx";
import { Timeline } from "./timeline.tsx";

export function DeploymentPage({ id }: { id: string }) {
  const { fail } = usePortal();
  const { rows, error, read, put } = useWatch(spec.deployment(id), `deployment-${id}`);
  const row = rows?.[0];
  const back = { href: "/deployments/", text: "All deployments" };
  if (error && !row) {
    const found = fail(error, "deployment");
    return found.kind === "not-found" ? <ProblemPage problem={found} back={back} /> : <ProblemNotice problem={found} retry={read} />;
  }
  if (rows === null) return <Skeleton rows={8} />;
  if (!row) return <ProblemPage problem={problem({ code: "PGRST116" }, "deployment")} back={back} />;
  return <Body row={row} read={read} put={put} />;
}

const TABS = ["plan", "log", "outputs", "configuration"] as const;
type TabName = (typeof TABS)[number];

function Body({ row, read, put }: { row: Deployment; read(): void; put(row: Deployment): void }) {
    const search = useSearchParams();
  const router = useRouter();
  const config = row.config_snapshot;
  const action = actionOf(config);
  const final = isFinal(row);
  const requested = Number(search.get("attempt"));
  const attempt = Number.isInteger(requested) && requested >= 1 && requested <= row.attempt ? requested : row.attempt;
  const isCurrent = attempt === row.attempt;
  const log = useLog(row.id, attempt, isCurrent ? (final ? row.log_count : null) : null, isCurrent && row.status === "FAILED");
  const clusters = useWatch(spec.cluster(row.cluster_id), `cluster-${row.cluster_id}`);
  const cluster = clusters.rows?.[0];
  const stored = useWatch(spec.changes(row.id), `changes-${row.id}`);
  const narrated = useNarration(row, attempt, log);
  const changes = stored.rows?.some((change) => change.attempt === attempt) ? stored.rows : narrated;
  const detailed = changes !== narrated;

  // The tab that fits the state: the plan that waits, or the log of the run or of its failure.
  const waits = waitsForApproval(row);
  const suggested: TabName = waits ? "plan" : row.status === "SUCCESS" && action === "plan" ? "plan" : "log";
  const [chosen, setChosen] = useState<TabName | null>(() => (location.hash.startsWith("#L") ? "log" : TABS.find((name) => name === search.get("tab")) ?? null));
  const [stable, setStable] = useState<TabName>(suggested);
  const wasWaiting = useRef(waits);
  useEffect(() => {
    // Only a plan that begins to wait or was decided moves the page; the end of a run does not.
    if (wasWaiting.current !== waits) setStable(waits ? "plan" : "log");
    wasWaiting.current = waits;
  }, [waits]);
  const tab = chosen ?? stable;
  const choose = (name: TabName): void => {
    setChosen(name);
    const next = new URLSearchParams(search);
    next.set("tab", name);
    history.replaceState(history.state, "", `?${next}`);
  };
  useEffect(() => {
    document.title = `${subject(config)} / ${stackName(config)} · Tendril`;
  }, [config]);
  const outputs = Object.keys(row.outputs ?? {}).length;
  const began = row.claimed_at && isCurrent ? Date.parse(row.claimed_at) : null;
  return (
    <>
      <nav className="crumbs" aria-label="Breadcrumb">
        <Link href="/deployments/">Deployments</Link><Icon name="chevron" size={12} />
      </nav>
      <header className="head">
        <div>
          <h1>{subject(config)}<span className="quiet"> / {stackName(config)}</span> <ActionTag action={action} /> <StatusBadge row={row} /></h1>
          <p className="meta">
            {cluster ? <Link href={`/cluster/?id=${cluster.id}`}>{cluster.name}</Link> : null}
            {row.claimed_by ? <span>agent {row.claimed_by}</span> : null}
            <span>queued <Ago time={row.created_at} /></span>
            {row.claimed_at ? <span>{final ? "took" : "running for"} <Lasting from={row.claimed_at} to={row.finished_at} /></span> : null}
            {row.attempt > 1 ? <span>attempt {row.attempt}</span> : null}
          </p>
        </div>
        <div className="head-actions">
          {final ? (
            <>
              <Link className="button" href={`/new/?from=${row.id}`}><Icon name="again" /> Run again</Link>
              {action === "apply" ? <Link className="button bad-quiet" href={`/new/?from=${row.id}&action=destroy`}><Icon name="trash" /> Destroy</Link> : null}
            </>
          ) : waits ? null : <CancelButton row={row} onDone={(next) => (next ? put({ ...row, ...next }) : read())} />}
        </div>
      </header>
      <Timeline row={row} log={isCurrent ? log : null} />
      <Situation row={row} cluster={cluster} onShowLog={() => choose("log")} />
      <Approval row={row} changes={changes} attempt={row.attempt} onDone={(next) => (next ? put({ ...row, ...next }) : read())} />
      <Tabs
        label="Deployment" active={tab} onChange={choose}
        tabs={[
          { name: "plan", title: "Plan", extra: row.plan_summary ? <Counts summary={row.plan_summary} /> : undefined },
          { name: "log", title: "Log" },
          { name: "outputs", title: "Outputs", extra: outputs > 0 ? <span className="pill">{outputs}</span> : undefined },
          { name: "configuration", title: "Configuration" },
        ]}
      />
      <Panel name="plan" active={tab}>
        <PlanTable rows={changes} attempt={attempt} applying={!final && applyBegan(row)} isDone={row.plan_summary !== null} detailed={detailed} warns={!waits && !final} />
      </Panel>
      <Panel name="log" active={tab} className="log-panel">
        {log ? (
          <LogViewer
            key={attempt} log={log} deployment={row.id} attempt={attempt} began={began} finished={row.finished_at ? Date.parse(row.finished_at) : null}
            result={!isCurrent ? "quiet" : row.status === "SUCCESS" ? "good" : row.status === "FAILED" ? "bad" : final ? "quiet" : null}
            toolbar={row.attempt > 1 ? (
              <select aria-label="Attempt" value={attempt} onChange={(event) => {
                const next = new URLSearchParams(search);
                next.set("attempt", event.target.value);
                next.set("tab", "log");
                setChosen("log");
                router.replace(`/deployment/?${next}`, { scroll: false });
              }}>
                {Array.from({ length: row.attempt }, (_, i) => <option key={i} value={i + 1}>Attempt {i + 1}</option>)}
              </select>
            ) : undefined}
          />
        ) : <Empty title="Not started">The log begins when an agent takes this deployment.</Empty>}
      </Panel>
      <Panel name="outputs" active={tab}><Outputs row={row} /></Panel>
      <Panel name="configuration" active={tab}><Configuration row={row} /></Panel>
    </>
  );
}

/** The changes as the log shows them, where the agent writes no rows of them. */
function useNarration(row: Deployment, attempt: number, log: Log | null): Change[] {
  const state = useRef<{ log: Log["feed"] | null; generation: number; narration: Narration; rows: Change[] } | null>(null);
  const feed = log?.feed ?? null;
  const generation = feed?.store.generation ?? 0;
  if (!state.current || state.current.log !== feed || state.current.generation !== generation) {
    state.current = { log: feed, generation, narration: new Narration(row.id, attempt), rows: [] };
  }
  const { narration } = state.current;
  if (feed && narration.take(feed.store.length, (i) => feed.store.line(i))) state.current.rows = narration.rows();
  const rows = state.current.rows;
  return useMemo(() => rows, [rows]);
}
