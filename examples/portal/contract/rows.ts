// The rows of the database as a signed-in user reads them, and the columns to ask for. Rights are per column: `select=*` is refused.

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

export type ClusterStatus = "PENDING" | "ONLINE" | "OFFLINE";

/** A place where agents run. */
export interface Cluster {
  id: string;
  name: string;
  status: ClusterStatus;
  agent_version: string | null;
  revoked_at: string | null;
  created_at: string;
}

export type Status = "QUEUED" | "PROCESSING" | "SUCCESS" | "FAILED" | "CANCELLED";
export type Action = "plan" | "apply" | "destroy";

/** What a deployment runs, frozen when it is queued. */
export interface ConfigSnapshot {
  template?: string;
  source?: { git: string; ref?: string; path?: string };
  stack?: string;
  action?: Action;
  variables?: { [name: string]: Json };
  approval?: boolean;
}

/** Counts of a plan. */
export interface PlanSummary {
  add?: number;
  change?: number;
  remove?: number;
  import?: number;
  move?: number;
  forget?: number;
  drift?: number;
}

/** What a template's resources cost, according to infracost. Amounts are decimal strings; null means unknown, not 0. */
export interface Cost {
  currency?: string;
  monthly?: string | null;
  hourly?: string | null;
  usage_monthly?: string | null;
  resources?: { detected: number; priced: number; unpriced: number; unsupported: number; free: number };
  by_resource?: { name: string; type: string; monthly: string | null }[];
  tool?: string;
  reason?: string;
}

/** One job. */
export interface Deployment {
  id: string;
  cluster_id: string;
  config_snapshot: ConfigSnapshot;
  status: Status;
  phase: string | null;
  attempt: number;
  claimed_by: string | null;
  claimed_at: string | null;
  cancel_requested_at: string | null;
  created_at: string;
  started_at: string | null;
  finished_at: string | null;
  plan_summary: PlanSummary | null;
  plan_sha256: string | null;
  approved_plan: string | null;
  approved_at: string | null;
  cost: Cost | null;
  cost_status: "OK" | "PARTIAL" | "UNAVAILABLE" | null;
  outputs: { [name: string]: Json } | null;
  log_count: number;
  error_code: string | null;
  error_message: string | null;
  template_commit: string | null;
  /** The program that runs it, such as `terraform 1.11.4`. */
  terraform_version: string | null;
  /** Which state it works on. */
  state_key: string;
  /** Order of arrival. */
  queue_order: number;
  queue_expires_at: string | null;
  approval_expires_at: string | null;
  approved_by: string | null;
  approval_comment: string | null;
  cancel_comment: string | null;
  cancelled_by: string | null;
  /** Something was applied. */
  applied: boolean;
}

/** A chunk of a deployment's output: whole lines. */
export interface LogChunk {
  attempt: number;
  /** 1, 2, 3 … per attempt, without gaps. */
  seq: number;
  stream: "stdout" | "stderr" | "agent";
  log_chunk: string;
  /** When the agent read the first line. */
  ts: string;
}

/** One state: what is deployed where. */
export interface Stack {
  cluster_id: string;
  state_key: string;
  template: string | null;
  source: { git: string; ref?: string; path?: string } | null;
  stack: string | null;
  last_deployment_id: string | null;
  last_status: Status | null;
  last_action: Action | null;
  last_finished_at: string | null;
  last_success_id: string | null;
  last_success_at: string | null;
  resources: number | null;
  backend: string | null;
  state_held_by: string | null;
  state_held_since: string | null;
  state_held_reason: string | null;
  updated_at: string;
}

export type ChangeAction =
  | "create" | "update" | "replace" | "delete" | "read" | "import" | "move" | "forget" | "no-op" | "truncated";

/** One attribute of a planned change. Sensitive values never leave the agent. */
export interface AttributeChange {
  path: string;
  before?: Json;
  after?: Json;
  sensitive?: boolean;
  /** Known only after apply. */
  unknown?: boolean;
  truncated?: boolean;
  requires_replace?: boolean;
}

export type ChangeStatus = "PLANNED" | "RUNNING" | "DONE" | "FAILED";

/** What a plan does to one resource, and how far that got. */
export interface Change {
  deployment_id: string;
  attempt: number;
  position: number;
  address: string;
  resource_type: string | null;
  provider: string | null;
  action: ChangeAction;
  drift: boolean;
  /** A marker of cut plans has `{"omitted": n}` instead of a list. */
  attributes: AttributeChange[] | { omitted: number } | null;
  status: ChangeStatus;
  started_at: string | null;
  seconds: number | null;
  error: string | null;
}

/** A template that the agents of a cluster carry. */
export interface ClusterTemplate {
  cluster_id: string;
  name: string;
  digest: string | null;
  title: string | null;
  description: string | null;
  variables: Json;
  updated_at: string;
}

/** An agent process. */
export interface Agent {
  cluster_id: string;
  name: string;
  version: string | null;
  state_backend: string | null;
  started_at: string | null;
  last_seen_at: string | null;
  status: "ACTIVE" | "REFUSED";
  /** Why it may not work, where it is refused. */
  refused_reason: string | null;
  /** How many deployments it holds. */
  jobs: number;
  /** The last heartbeat is recent enough. */
  is_live: boolean;
}

/** A cluster with what changes at each heartbeat: read, not pushed. */
export interface ClusterState {
  id: string;
  last_seen_at: string | null;
  agents: number;
  refused_agents: number;
  jobs: number;
}

/** What is known of a cluster's keys: never the keys. */
export interface KeyStatus {
  current: { created_at: string | null; last_used_at: string | null } | null;
  next: { created_at: string | null; last_used_at: string | null } | null;
}

export const CLUSTER_COLUMNS = "id,name,status,agent_version,revoked_at,created_at";
export const DEPLOYMENT_COLUMNS =
  "id,cluster_id,config_snapshot,status,phase,attempt,claimed_by,claimed_at,cancel_requested_at,created_at,started_at," +
  "finished_at,plan_summary,plan_sha256,approved_plan,approved_at,cost,cost_status,outputs,log_count,error_code," +
  "error_message,template_commit,terraform_version,state_key,queue_expires_at,approval_expires_at,approved_by,approval_comment,cancel_comment,cancelled_by,applied,queue_order";
/** A list needs no outputs and no cost, which may be large. */
export const DEPLOYMENT_LIST_COLUMNS = DEPLOYMENT_COLUMNS.replace(",outputs", "").replace(",cost,", ",");

/** The contract that this portal needs of the database; a newer one still has what it promised. */
export const CONTRACT = 3;
export const CHUNK_COLUMNS = "attempt,seq,stream,log_chunk,ts";
export const STACK_COLUMNS =
  "cluster_id,state_key,template,source,stack,last_deployment_id,last_status,last_action,last_finished_at," +
  "last_success_id,last_success_at,resources,backend,state_held_by,state_held_since,state_held_reason,created_at,updated_at";
export const CHANGE_COLUMNS =
  "deployment_id,attempt,position,address,resource_type,provider,action,drift,attributes,status,started_at,seconds,error";
export const TEMPLATE_COLUMNS = "cluster_id,name,digest,title,description,variables,updated_at";
export const AGENT_COLUMNS = "cluster_id,name,version,state_backend,started_at,last_seen_at,status,refused_reason,jobs,is_live";
export const CLUSTER_STATE_COLUMNS = "id,last_seen_at,agents,refused_agents,jobs";
