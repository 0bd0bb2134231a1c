-- A deployment is one job: what to run (`config_snapshot`), and how far it got.

create table public.deployments (
  id uuid primary key default gen_random_uuid(),
  cluster_id uuid not null references public.clusters (id) on delete cascade,
  config_snapshot jsonb not null,
  status text not null default 'QUEUED',
  phase text,
  attempt integer not null default 0,
  claim_token uuid,
  claimed_by text,
  claimed_at timestamptz,
  lease_expires_at timestamptz,
  cancel_requested_at timestamptz,
  created_at timestamptz not null default now(),
  started_at timestamptz,
  finished_at timestamptz,
  plan_summary jsonb,
  cost jsonb,
  cost_status text,
  outputs jsonb,
  log_count bigint not null default 0,
  error_code text,
  error_message text,

  constraint deployments_status_known
    check (status in ('QUEUED', 'PROCESSING', 'SUCCESS', 'FAILED', 'CANCELLED')),
  constraint deployments_phase_known
    check (phase in ('CLAIMED', 'WORKSPACE', 'COST', 'INIT', 'PLAN', 'APPROVAL', 'APPLY', 'DESTROY', 'OUTPUT', 'REPORT', 'UNKNOWN')),
  constraint deployments_cost_status_known check (cost_status in ('OK', 'PARTIAL', 'UNAVAILABLE')),
  constraint deployments_attempt_not_negative check (attempt >= 0),
  constraint deployments_log_count_not_negative check (log_count >= 0),
  constraint deployments_claimed_by_length check (char_length(claimed_by) <= 200),
  constraint deployments_results_are_objects check (
    coalesce(jsonb_typeof(plan_summary), 'object') = 'object'
    and coalesce(jsonb_typeof(cost), 'object') = 'object'
    and coalesce(jsonb_typeof(outputs), 'object') = 'object'
  ),

  -- What each status means for the other columns, so that no reader has to guess.
  constraint deployments_queued_is_unclaimed
    check (status <> 'QUEUED' or (claim_token is null and lease_expires_at is null and phase is null and finished_at is null)),
  constraint deployments_processing_is_claimed
    check (status <> 'PROCESSING' or (claim_token is not null and lease_expires_at is not null and phase is not null and finished_at is null)),
  constraint deployments_finished_has_an_end
    check (status in ('QUEUED', 'PROCESSING') or (finished_at is not null and lease_expires_at is null)),

  -- The outline of config_snapshot, one constraint per rule so that its name in the error says what to mend. The agent
  -- checks the whole of it; the schema is in supabase/config_snapshot.schema.json. `is true`: a check passes on null.
  constraint config_snapshot_is_an_object check (jsonb_typeof(config_snapshot) = 'object'),
  constraint config_snapshot_names_a_template_or_source check ((
    jsonb_typeof(config_snapshot -> 'template') = 'string' or jsonb_typeof(config_snapshot -> 'source' -> 'git') = 'string'
  ) is true),
  constraint config_snapshot_action_known check (
    not config_snapshot ? 'action' or config_snapshot -> 'action' in ('"plan"', '"apply"', '"destroy"')
  ),
  constraint config_snapshot_variables_are_an_object check (
    not config_snapshot ? 'variables' or jsonb_typeof(config_snapshot -> 'variables') = 'object'
  ),
  -- Realtime cuts columns out of changes above 1 MiB; a snapshot must always fit.
  constraint config_snapshot_at_most_256_kib check (octet_length(config_snapshot::text) <= 262144)
);

comment on table public.deployments is 'Jobs. Users insert and cancel them, agents claim and finish them; the trigger enforce_state allows only legal transitions.';
comment on column public.deployments.config_snapshot is 'What to run, frozen at insert. JSON Schema: supabase/config_snapshot.schema.json.';
comment on column public.deployments.status is 'QUEUED, PROCESSING, SUCCESS, FAILED, CANCELLED.';
comment on column public.deployments.phase is 'Where a claimed job is, or where it ended. UNKNOWN: the agent fell silent after apply began. Null while QUEUED.';
comment on column public.deployments.attempt is 'How often the job was claimed; counted by the trigger.';
comment on column public.deployments.claim_token is 'Made by the agent that claims; whoever shows it owns the job. Kept after the end, cleared by a requeue.';
comment on column public.deployments.claimed_by is 'Which agent process, for people.';
comment on column public.deployments.claimed_at is 'Time of the current claim, by the database clock.';
comment on column public.deployments.lease_expires_at is 'When a silent agent counts as lost. Extended by each heartbeat; null unless PROCESSING.';
comment on column public.deployments.cancel_requested_at is 'When a user first asked to cancel. A queued job is cancelled at once, a running one by its agent.';
comment on column public.deployments.started_at is 'When the current attempt began, by the database clock.';
comment on column public.deployments.finished_at is 'When the job reached its final status, by the database clock.';
comment on column public.deployments.plan_summary is 'Counts of the plan: {"add": 1, "change": 0, "remove": 0, …}.';
comment on column public.deployments.cost is 'Cost estimate; see cost_status.';
comment on column public.deployments.cost_status is 'OK, PARTIAL or UNAVAILABLE; null before the estimate.';
comment on column public.deployments.outputs is 'Outputs that are not sensitive: {"name": value}.';
comment on column public.deployments.log_count is 'How many rows of deployment_logs the current attempt has; final when the job is.';
comment on column public.deployments.error_code is 'AGENT_LOST, CANCELLED, TERRAFORM_FAILED, CONFIG_INVALID, TEMPLATE_NOT_FOUND, INTERNAL.';
comment on column public.deployments.error_message is 'What went wrong, for people; cut at 8192 characters.';

-- Leading column of the policies; then the queue: own QUEUED rows, oldest first.
create index deployments_queue on public.deployments (cluster_id, status, created_at);
-- One claim, one job: a heartbeat's tokens are unambiguous, and looked up by this index.
create unique index deployments_claim_token on public.deployments (claim_token) where claim_token is not null;
-- For the reaper, which looks at leases of all clusters.
create index deployments_leases on public.deployments (lease_expires_at) where status = 'PROCESSING';

revoke all on table public.deployments from public, anon, authenticated, service_role, tendril_agent;
alter table public.deployments enable row level security;

-- Users: everything but the claim token, which would let them write as the agent.
grant select (id, cluster_id, config_snapshot, status, phase, attempt, claimed_by, claimed_at, lease_expires_at,
              cancel_requested_at, created_at, started_at, finished_at, plan_summary, cost, cost_status, outputs,
              log_count, error_code, error_message),
      insert (id, cluster_id, config_snapshot, status),
      update (cancel_requested_at)
  on public.deployments to authenticated;

-- Agents: results and progress; never what to run, never the clock columns, which the trigger writes.
grant select (id, cluster_id, config_snapshot, status, phase, attempt, claim_token, claimed_by, claimed_at,
              lease_expires_at, cancel_requested_at, created_at, started_at, finished_at, plan_summary, cost,
              cost_status, outputs, log_count, error_code, error_message),
      update (status, phase, claim_token, claimed_by, plan_summary, cost, cost_status, outputs, log_count, error_code,
              error_message)
  on public.deployments to tendril_agent;

grant select, insert, update, delete on public.deployments to service_role;

-- `= any (array(…))` is computed once and searched by index; `in (select …)` would scan the deployments of all users.
create policy "A user reads deployments of own clusters" on public.deployments
  for select to authenticated
  using (cluster_id = any (array(select id from public.clusters where user_id = (select auth.uid()))));
create policy "A user queues deployments on own live clusters" on public.deployments
  for insert to authenticated
  with check (
    status = 'QUEUED'
    and cluster_id = any (array(select id from public.clusters where user_id = (select auth.uid()) and revoked_at is null))
  );
create policy "A user cancels deployments of own clusters" on public.deployments
  for update to authenticated
  using (cluster_id = any (array(select id from public.clusters where user_id = (select auth.uid()))))
  with check (cluster_id = any (array(select id from public.clusters where user_id = (select auth.uid()))));

create policy "An agent reads deployments of its cluster" on public.deployments
  for select to tendril_agent using (cluster_id = (select tendril.agent_cluster_id()));
create policy "An agent works on deployments of its cluster" on public.deployments
  for update to tendril_agent
  using (cluster_id = (select tendril.agent_cluster_id()))
  with check (cluster_id = (select tendril.agent_cluster_id()));
