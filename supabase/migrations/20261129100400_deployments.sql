-- A deployment is one job: what to run (`config_snapshot`), and how far it got.

create table public.deployments (
  id uuid primary key default gen_random_uuid(),
  cluster_id uuid not null references public.clusters (id) on delete cascade,
  config_snapshot jsonb not null,
  state_key text not null,
  queue_order bigint generated always as identity,
  status text not null default 'QUEUED',
  phase text,
  attempt integer not null default 0,
  claim_token uuid,
  claimed_by text,
  claimed_at timestamptz,
  queue_expires_at timestamptz,
  cancel_requested_at timestamptz,
  cancelled_by uuid,
  cancel_comment text,
  created_at timestamptz not null default now(),
  started_at timestamptz,
  finished_at timestamptz,
  template_commit text,
  terraform_version text,
  plan_summary jsonb,
  plan_sha256 text,
  approval_expires_at timestamptz,
  approved_plan text,
  approved_at timestamptz,
  approved_by uuid,
  approval_comment text,
  applied boolean not null default false,
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
  constraint deployments_approval_comment_at_most_2000_characters check (char_length(approval_comment) <= 2000),
  constraint deployments_cancel_comment_at_most_2000_characters check (char_length(cancel_comment) <= 2000),
  constraint deployments_results_are_objects check (
    coalesce(jsonb_typeof(plan_summary), 'object') = 'object'
    and coalesce(jsonb_typeof(cost), 'object') = 'object'
    and coalesce(jsonb_typeof(outputs), 'object') = 'object'
  ),
  -- 40 hexadecimal digits, or 64 where a repository counts in SHA-256.
  constraint deployments_template_commit_is_one check (template_commit ~ '^([0-9a-f]{40}|[0-9a-f]{64})$'),
  constraint deployments_terraform_version_is_one check (terraform_version ~ '^(terraform|tofu) [0-9]+\.[0-9]+\.[0-9]+[0-9A-Za-z.+-]{0,60}$'),
  constraint deployments_plan_sha256_is_one check (plan_sha256 ~ '^[0-9a-f]{64}$'),
  constraint deployments_approval_is_of_the_plan check (approved_plan is null or approved_plan = plan_sha256),

  -- What each status means for the other columns, so that no reader has to guess.
  constraint deployments_queued_is_unclaimed
    check (status <> 'QUEUED' or (claim_token is null and phase is null and finished_at is null)),
  constraint deployments_processing_is_claimed
    check (status <> 'PROCESSING' or (claim_token is not null and phase is not null and finished_at is null)),
  constraint deployments_finished_has_an_end
    check (status in ('QUEUED', 'PROCESSING') or finished_at is not null)
);

comment on table public.deployments is 'Jobs. Users insert, approve and cancel them, agents claim and finish them; the trigger enforce_state allows only legal transitions.';
comment on column public.deployments.config_snapshot is 'What to run, frozen at insert. JSON Schema: supabase/config_snapshot.schema.json.';
comment on column public.deployments.state_key is 'The stack, which is one Terraform state: "<template>.<stack>", "git-<name>-<16 hex digits>.<stack>", or the deployment''s own id where no stack is named. Computed at insert.';
comment on column public.deployments.queue_order is 'Order of arrival. The deployments of a stack run in this order.';
comment on column public.deployments.status is 'QUEUED, PROCESSING, SUCCESS, FAILED, CANCELLED.';
comment on column public.deployments.phase is 'Where a claimed job is, or where it ended. UNKNOWN: the agent fell silent after apply began. Null while QUEUED.';
comment on column public.deployments.attempt is 'How often the job was claimed; counted by the trigger.';
comment on column public.deployments.claim_token is 'Made by the agent that claims; whoever presents it owns the job. It stays after the end, and is cleared by a requeue.';
comment on column public.deployments.claimed_by is 'Name of the agent that claimed it.';
comment on column public.deployments.claimed_at is 'Time of the current claim, by the database clock.';
comment on column public.deployments.queue_expires_at is 'When the job ends as TIMED_OUT if no agent has claimed it: config_snapshot.timeouts.queue. Null: never.';
comment on column public.deployments.cancel_requested_at is 'When a user first asked to cancel. A queued job is cancelled at once, a running one by its agent.';
comment on column public.deployments.cancelled_by is 'The user who asked to cancel; null for the service.';
comment on column public.deployments.cancel_comment is 'The user''s reason. Set together with cancel_requested_at.';
comment on column public.deployments.started_at is 'When the current attempt began, by the database clock.';
comment on column public.deployments.finished_at is 'When the job reached its final status, by the database clock.';
comment on column public.deployments.template_commit is 'Commit of the Git repository in config_snapshot.source that is run, written by the agent; null for templates that the agent carries.';
comment on column public.deployments.terraform_version is 'The program that runs it, such as "terraform 1.11.4", written by the agent.';
comment on column public.deployments.plan_summary is 'Counts of the plan: {"add", "change", "remove", "import", "move", "forget", "drift"}.';
comment on column public.deployments.plan_sha256 is 'SHA-256 of the saved plan, written by the agent. What is applied has this digest.';
comment on column public.deployments.approval_expires_at is 'When a plan that nobody approved ends as APPROVAL_EXPIRED: config_snapshot.approval_expires. Null: never.';
comment on column public.deployments.approved_plan is 'Set by a user to plan_sha256 while the phase is APPROVAL: the agent then applies that plan.';
comment on column public.deployments.approved_at is 'When the plan was approved, by the database clock.';
comment on column public.deployments.approved_by is 'The user who approved it; null for the service.';
comment on column public.deployments.approval_comment is 'The user''s reason. Set together with approved_plan.';
comment on column public.deployments.applied is 'Whether something was applied. Written by the agent at the end.';
comment on column public.deployments.cost is 'Cost estimate; see cost_status.';
comment on column public.deployments.cost_status is 'OK, PARTIAL or UNAVAILABLE; null before the estimate.';
comment on column public.deployments.outputs is 'Outputs that are not sensitive: {"name": value}.';
comment on column public.deployments.log_count is 'How many rows of deployment_logs the current attempt has; final when the job is.';
comment on column public.deployments.error_code is 'AGENT_LOST, AGENT_STOPPED, APPROVAL_EXPIRED, CANCELLED, CLUSTER_REVOKED, CONFIG_INVALID, DISK_FULL, INTERNAL, PLAN_CHANGED, POLICY_DENIED, SOURCE_INVALID, SOURCE_UNAVAILABLE, STATE_LOCKED, STATE_NOT_STORED, TEMPLATE_NOT_FOUND, TERRAFORM_FAILED, TIMED_OUT.';
comment on column public.deployments.error_message is 'What went wrong, for people; cut at 8192 characters.';

-- Leading column of the policies; then the queue: own QUEUED rows, oldest first.
create index deployments_queue on public.deployments (cluster_id, status, created_at);
-- The line in front of a stack.
create index deployments_stack on public.deployments (cluster_id, state_key, queue_order) where status in ('QUEUED', 'PROCESSING');
-- One run of a stack at a time, whoever claims.
create unique index deployments_one_run_per_stack on public.deployments (cluster_id, state_key) where status = 'PROCESSING';
-- One claim, one job: a heartbeat's tokens are unambiguous, and looked up by this index.
create unique index deployments_claim_token on public.deployments (claim_token) where claim_token is not null;
-- For the reaper, which looks at all clusters.
create index deployments_queue_expires on public.deployments (queue_expires_at) where status = 'QUEUED' and queue_expires_at is not null;
create index deployments_approval_expires on public.deployments (approval_expires_at) where status = 'PROCESSING' and approval_expires_at is not null;
-- For prune().
create index deployments_finished on public.deployments (cluster_id, finished_at) where finished_at is not null;

revoke all on table public.deployments from public, anon, authenticated, service_role, tendril_agent;
revoke all on sequence public.deployments_queue_order_seq from public, anon, authenticated, service_role, tendril_agent;
alter table public.deployments enable row level security;

-- Users: everything but the claim token, which would let them write as the agent.
grant select (id, cluster_id, config_snapshot, state_key, queue_order, status, phase, attempt, claimed_by, claimed_at, queue_expires_at,
              cancel_requested_at, cancelled_by, cancel_comment, created_at, started_at, finished_at, template_commit, terraform_version, plan_summary,
              plan_sha256, approval_expires_at, approved_plan, approved_at, approved_by, approval_comment, applied, cost,
              cost_status, outputs, log_count, error_code, error_message),
      insert (id, cluster_id, config_snapshot, status),
      update (cancel_requested_at, cancel_comment, approved_plan, approval_comment)
  on public.deployments to authenticated;

-- Agents: results and progress; never what to run, never the clock columns, which the trigger writes.
grant select (id, cluster_id, config_snapshot, state_key, queue_order, status, phase, attempt, claim_token, claimed_by, claimed_at,
              queue_expires_at, cancel_requested_at, cancelled_by, cancel_comment, created_at, started_at, finished_at,
              template_commit, terraform_version, plan_summary, plan_sha256, approval_expires_at, approved_plan, approved_at, approved_by,
              approval_comment, applied, cost, cost_status, outputs, log_count, error_code, error_message),
      update (status, phase, claim_token, claimed_by, template_commit, terraform_version, plan_summary, plan_sha256, applied, cost,
              cost_status, outputs, log_count, error_code, error_message)
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
create policy "A user approves and cancels deployments of own clusters" on public.deployments
  for update to authenticated
  using (cluster_id = any (array(select id from public.clusters where user_id = (select auth.uid()))))
  with check (cluster_id = any (array(select id from public.clusters where user_id = (select auth.uid()))));

-- The token of one run reaches that deployment alone.
create policy "An agent reads deployments of its cluster" on public.deployments
  for select to tendril_agent
  using (cluster_id = (select tendril.agent_cluster_id()) and id = coalesce((select tendril.claimed_deployment_id()), id));
create policy "An agent works on deployments of its cluster" on public.deployments
  for update to tendril_agent
  using (cluster_id = (select tendril.agent_cluster_id()) and id = coalesce((select tendril.claimed_deployment_id()), id))
  with check (cluster_id = (select tendril.agent_cluster_id()) and id = coalesce((select tendril.claimed_deployment_id()), id));
