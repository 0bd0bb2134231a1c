// What the pages watch.

import * as rows from "../contract/rows.ts";
import type { WatchSpec } from "./watch.ts";

export const clusters = (): WatchSpec<rows.Cluster> => ({
  table: "clusters",
  columns: rows.CLUSTER_COLUMNS,
  key: (row) => row.id,
  order: { column: "created_at", ascending: true },
});

export const cluster = (id: string): WatchSpec<rows.Cluster> => ({
  ...clusters(),
  equal: [{ column: "id", value: id }],
});

/** How many deployments a list shows at first, and how many more each time. */
export const PAGE = 200;

export const deployments = (limit: number, cluster: string | null): WatchSpec<rows.Deployment> => ({
  table: "deployments",
  columns: rows.DEPLOYMENT_LIST_COLUMNS,
  key: (row) => row.id,
  ...(cluster ? { equal: [{ column: "cluster_id", value: cluster }] } : {}),
  order: { column: "queue_order", ascending: false },
  limit,
});

export const deployment = (id: string): WatchSpec<rows.Deployment> => ({
  table: "deployments",
  columns: rows.DEPLOYMENT_COLUMNS,
  key: (row) => row.id,
  equal: [{ column: "id", value: id }],
  order: { column: "created_at", ascending: false },
});

export const stacks = (): WatchSpec<rows.Stack> => ({
  table: "stacks",
  columns: rows.STACK_COLUMNS,
  key: (row) => `${row.cluster_id}/${row.state_key}`,
  order: { column: "updated_at", ascending: false },
});

export const changes = (deployment: string): WatchSpec<rows.Change> => ({
  table: "deployment_changes",
  columns: rows.CHANGE_COLUMNS,
  key: (row) => `${row.attempt}/${row.position}`,
  equal: [{ column: "deployment_id", value: deployment }],
  order: { column: "position", ascending: true },
  all: true,
});

export const templates = (cluster: string): WatchSpec<rows.ClusterTemplate> => ({
  table: "cluster_templates",
  columns: rows.TEMPLATE_COLUMNS,
  key: (row) => row.name,
  equal: [{ column: "cluster_id", value: cluster }],
  order: { column: "name", ascending: true },
});

export const agents = (cluster: string): WatchSpec<rows.Agent> => ({
  table: "agents",
  columns: rows.AGENT_COLUMNS,
  key: (row) => row.name,
  equal: [{ column: "cluster_id", value: cluster }],
  order: { column: "name", ascending: true },
  unpublished: true,
});

export const clusterState = (cluster: string): WatchSpec<rows.ClusterState> => ({
  table: "cluster_status",
  columns: rows.CLUSTER_STATE_COLUMNS,
  key: (row) => row.id,
  equal: [{ column: "id", value: cluster }],
  order: { column: "id", ascending: true },
  unpublished: true,
});

/** What runs or waits on one stack. */
export const queueOf = (cluster: string, stateKey: string): WatchSpec<rows.Deployment> => ({
  ...deployments(50, cluster),
  equal: [{ column: "cluster_id", value: cluster }, { column: "state_key", value: stateKey }],
});

export const stack = (cluster: string, stateKey: string): WatchSpec<rows.Stack> => ({
  ...stacks(),
  equal: [{ column: "cluster_id", value: cluster }, { column: "state_key", value: stateKey }],
});
