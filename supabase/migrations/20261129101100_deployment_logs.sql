-- The output of a deployment, in chunks. Append only.

create table public.deployment_logs (
  id bigint generated always as identity primary key,
  deployment_id uuid not null references public.deployments (id) on delete cascade,
  attempt integer not null,
  seq bigint not null,
  stream text not null,
  log_chunk text not null,
  ts timestamptz not null default now(),
  created_at timestamptz not null default now(),

  -- Makes a repeated insert harmless (on conflict do nothing), and is the order in which logs are read.
  constraint deployment_logs_chunk_once unique (deployment_id, attempt, seq),
  constraint deployment_logs_attempt_positive check (attempt >= 1),
  constraint deployment_logs_seq_positive check (seq >= 1),
  constraint deployment_logs_stream_known check (stream in ('stdout', 'stderr', 'agent')),
  constraint deployment_logs_chunk_at_most_64_kib check (octet_length(log_chunk) <= 65536)
);

comment on table public.deployment_logs is 'Output of deployments: a row is a chunk of whole lines. Order: attempt, seq.';
comment on column public.deployment_logs.attempt is 'Which attempt of the deployment wrote it; late chunks of a lost attempt keep their own number.';
comment on column public.deployment_logs.seq is '1, 2, 3, … per deployment and attempt, across all streams, without gaps.';
comment on column public.deployment_logs.stream is 'stdout and stderr of the run, or agent for the agent''s own annotations.';
comment on column public.deployment_logs.log_chunk is 'Whole lines, each ended by a newline; up to 64 KiB (agents send up to 16 KiB).';
comment on column public.deployment_logs.ts is 'When the agent read the first line of the chunk.';
comment on column public.deployment_logs.created_at is 'When the row was stored.';

revoke all on table public.deployment_logs from public, anon, authenticated, service_role, tendril_agent;
revoke all on sequence public.deployment_logs_id_seq from public, anon, authenticated, service_role, tendril_agent;
alter table public.deployment_logs enable row level security;

grant select on public.deployment_logs to authenticated;
-- `on conflict do nothing` reads the columns of the conflict and checks the SELECT policy: an agent needs both.
grant select (deployment_id, attempt, seq),
      insert (deployment_id, attempt, seq, stream, log_chunk, ts)
  on public.deployment_logs to tendril_agent;
grant select, insert on public.deployment_logs to service_role;

-- One look-up by primary key for each row. As `exists (…)` the planner may gather all deployments of the user first, and
-- Realtime would pay for that at each live change and each subscriber.
create policy "A user reads logs of own deployments" on public.deployment_logs
  for select to authenticated
  using (
    (select d.cluster_id from public.deployments d where d.id = deployment_logs.deployment_id)
    = any (array(select c.id from public.clusters c where c.user_id = (select auth.uid())))
  );

create policy "An agent sees which chunks of its cluster are stored" on public.deployment_logs
  for select to tendril_agent
  using (
    (select d.cluster_id from public.deployments d where d.id = deployment_logs.deployment_id)
    = (select tendril.agent_cluster_id())
    and deployment_id = coalesce((select tendril.claimed_deployment_id()), deployment_id)
  );
-- Earlier attempts stay open: what a lost agent read before it was cut off is still worth having.
create policy "An agent appends logs to attempts of its cluster" on public.deployment_logs
  for insert to tendril_agent
  with check (exists (
    select from public.deployments d
    where d.id = deployment_logs.deployment_id
      and d.cluster_id = (select tendril.agent_cluster_id())
      and d.id = coalesce((select tendril.claimed_deployment_id()), d.id)
      and deployment_logs.attempt between 1 and d.attempt
  ));
