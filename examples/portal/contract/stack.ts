// Stacks out of deployments, for a database of contract 2, which has no table of them.

import { isFinal, subject } from "./deployment.ts";
import type { Deployment, Stack } from "./rows.ts";

/** The stack that a deployment works on; a part of the page's own key, not the database's. */
const keyOf = (row: Deployment): string => row.state_key ?? `${subject(row.config_snapshot)}.${row.config_snapshot.stack ?? "default"}`;

/** One row for each stack, from its newest deployments. */
export function stacksOf(deployments: readonly Deployment[]): Stack[] {
  const found = new Map<string, Stack>();
  const newestFirst = [...deployments].sort((a, b) => b.created_at.localeCompare(a.created_at));
  for (const row of newestFirst) {
    const key = `${row.cluster_id}/${keyOf(row)}`;
    const config = row.config_snapshot;
    const stack = found.get(key) ?? {
      cluster_id: row.cluster_id, state_key: keyOf(row), template: config.template ?? null, source: config.source ?? null,
      stack: config.stack ?? "default", last_deployment_id: row.id, last_status: row.status, last_action: config.action ?? "apply",
      last_finished_at: row.finished_at, last_success_id: null, last_success_at: null, resources: null, backend: null,
      state_held_by: null, state_held_since: null, state_held_reason: null, updated_at: row.finished_at ?? row.created_at,
    };
    if (stack.last_success_id === null && isFinal(row) && row.status === "SUCCESS" && config.action !== "plan") {
      stack.last_success_id = row.id;
      stack.last_success_at = row.finished_at;
    }
    found.set(key, stack);
  }
  return [...found.values()];
}
