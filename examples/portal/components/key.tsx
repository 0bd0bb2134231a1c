"use client";
import Link from "next/link";
import { useState } from "react";
import { dockerLines, helmLines } from "../contract/install.ts";
import { usePortal } from "../live/session.tsx";
import * as spec from "../live/spec.ts";
import { useWatch } from "../live/use.ts";
import { ClusterBadge } from "./badge.tsx";
import { CopyButton, Shell } from "./copy.tsx";
import { Notice } from "./notice.tsx";
import { Panel, Tabs, type Tab } from "./tabs.tsx";

const INSTALLS: Tab<"helm" | "docker">[] = [{ name: "helm", title: "Helm" }, { name: "docker", title: "Docker" }];

/** A new key, the lines that start an agent with it, and whether one has come. */
export function KeyShown({ cluster, clusterKey, onClose, waits = true }: { cluster: string; clusterKey: string; onClose(): void; waits?: boolean }) {
  const { project } = usePortal();
  const [tab, setTab] = useState<"helm" | "docker">("helm");
  const { rows } = useWatch(spec.cluster(cluster), `cluster-${cluster}`);
  const row = rows?.[0];
  return (
    <div className="key-shown">
      <Notice tone="warn" title="Copy this key now.">It is shown this once; only its fingerprint is stored.</Notice>
      <div className="secret">
        <code data-testid="cluster-key">{clusterKey}</code>
        <CopyButton text={clusterKey} label="Copy key" />
      </div>
      <Tabs<"helm" | "docker"> label="How to install" tabs={INSTALLS} active={tab} onChange={setTab} />
      <Panel name="helm" active={tab}><Shell text={helmLines(project, clusterKey)} label="Helm" /></Panel>
      <Panel name="docker" active={tab}><Shell text={dockerLines(project, clusterKey)} label="Docker" /></Panel>
      <footer>
        {waits ? (
          <span className="waiting" role="status">
            <ClusterBadge status={row?.status ?? "PENDING"} revoked={false} />
            {row?.status === "ONLINE" ? <span className="quiet">Agent {row.agent_version} is here.</span> : null}
          </span>
        ) : <span />}
        <span>
          {row?.status === "ONLINE" && waits ? <Link className="button primary" href={`/new/?cluster=${cluster}`}>Deploy something</Link> : null}{" "}
          <button type="button" className="button" onClick={onClose}>I have copied the key</button>
        </span>
      </footer>
    </div>
  );
}
