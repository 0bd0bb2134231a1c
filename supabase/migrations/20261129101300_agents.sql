-- Which agents a cluster has, and when each sent its last heartbeat. Not published: every heartbeat changes it.

create table public.agents (
  cluster_id uuid not null references public.clusters (id) on delete cascade,
  name text not null,
  version text not null,
  state_backend text,
  backend_fingerprint text,
  jobs integer not null default 0,
  status text not null default 'ACTIVE',
  refused_reason text,
  started_at timestamptz not null default now(),
  last_seen_at timestamptz not null default now(),

  primary key (cluster_id, name),
  constraint agents_status_known check (status in ('ACTIVE', 'REFUSED')),
  constraint agents_refused_has_a_reason check ((status = 'REFUSED') = (refused_reason is not null))
) with (fillfactor = 70); -- Each heartbeat is an update in place.

comment on table public.agents is 'Agents that sent a heartbeat within the last day. Written by the heartbeat. Not published; the view cluster_status sums it up.';
comment on column public.agents.name is 'The name that the agent gives itself, cut at 200 characters.';
comment on column public.agents.state_backend is 'Where it stores states: local, s3, pg, …; null for agents of contract 2, which do not report it.';
comment on column public.agents.backend_fingerprint is 'Digest of the backend''s settings. No secret can be read from it.';
comment on column public.agents.jobs is 'How many deployments it held at its last heartbeat.';
comment on column public.agents.status is 'ACTIVE; or REFUSED: its state backend contradicts that of another live agent, and it claims nothing.';
comment on column public.agents.started_at is 'When this agent sent its first heartbeat, or its first after it was silent.';

revoke all on table public.agents from public, anon, authenticated, service_role, tendril_agent;
alter table public.agents enable row level security;
grant select on public.agents to authenticated, tendril_agent, service_role;
create policy "A user reads agents of own clusters" on public.agents
  for select to authenticated
  using (cluster_id = any (array(select id from public.clusters where user_id = (select auth.uid()))));
create policy "An agent reads agents of its cluster" on public.agents
  for select to tendril_agent
  using (cluster_id = (select tendril.agent_cluster_id()));

-- Idle agents send a heartbeat each minute; two may be lost. The reaper runs each 15 s: OFFLINE within 150 s.
create function public.is_live(agent public.agents) returns boolean
language sql stable set search_path = '' as $$
  select agent.last_seen_at > now() - interval '130 seconds'
$$;
comment on function public.is_live(public.agents) is 'Whether the agent sent a heartbeat within the last 130 seconds. A computed column: select=name,is_live.';

create view public.cluster_status with (security_invoker = true) as
select c.id, c.name, c.status, c.revoked_at, max(a.last_seen_at) as last_seen_at,
  count(a.name) filter (where public.is_live(a) and a.status = 'ACTIVE')::integer as agents,
  count(a.name) filter (where public.is_live(a) and a.status = 'REFUSED')::integer as refused_agents,
  coalesce(sum(a.jobs) filter (where public.is_live(a)), 0)::integer as jobs
from public.clusters c
left join public.agents a on a.cluster_id = c.id
group by c.id, c.name, c.status, c.revoked_at;
comment on view public.cluster_status is 'When the agents of a cluster sent their last heartbeat, how many are live, how many of those are refused, and how many deployments they hold.';
revoke all on table public.cluster_status from public, anon, authenticated, service_role, tendril_agent;
grant select on public.cluster_status to authenticated, service_role, tendril_agent;

-- Two agents with different states of one stack would each make their own copy of its infrastructure.
create function tendril.backend_conflict(cluster_id uuid, agent text, state_backend text, backend_fingerprint text) returns text
language sql stable set search_path = '' as $$
  select case when a.state_backend = 'local' and backend_conflict.state_backend = 'local'
      then format('agents %s and %s of one cluster both use the state backend local, each with a directory of its own: each would make its own copy of the infrastructure', backend_conflict.agent, a.name)
    when a.state_backend <> backend_conflict.state_backend
      then format('agent %s uses the state backend %s, and agent %s of the same cluster uses %s: they would work on different states', backend_conflict.agent, backend_conflict.state_backend, a.name, a.state_backend)
    else format('agents %s and %s of one cluster use the state backend %s with different settings: they would work on different states', backend_conflict.agent, a.name, a.state_backend)
  end
  from public.agents a
  where a.cluster_id = backend_conflict.cluster_id and a.name <> backend_conflict.agent and a.status = 'ACTIVE' and public.is_live(a)
    and a.state_backend is not null and backend_conflict.state_backend is not null
    and (a.state_backend <> backend_conflict.state_backend
      or a.state_backend = 'local' and a.backend_fingerprint is null
      or coalesce(a.backend_fingerprint, '') <> coalesce(backend_conflict.backend_fingerprint, ''))
  order by a.started_at
  limit 1
$$;
comment on function tendril.backend_conflict(uuid, text, text, text) is 'A sentence if another live agent of the cluster stores states elsewhere, otherwise null.';

-- One update in place for an agent that is known. What is new about it is checked with the cluster locked, so that two
-- agents that start at once do not both get in.
create function tendril.record_agent(cluster public.clusters, agent text, version text, state_backend text, backend_fingerprint text, jobs integer) returns public.agents
language plpgsql set search_path = '' as $$
declare
  named constant text := coalesce(nullif(left(btrim(agent), 200), ''), 'unnamed');
  agent_row public.agents;
  conflict text;
begin
  update public.agents a set last_seen_at = now(), jobs = record_agent.jobs
  where a.cluster_id = cluster.id and a.name = named and a.version = record_agent.version and a.status = 'ACTIVE' and public.is_live(a)
    and (a.state_backend, a.backend_fingerprint) is not distinct from (record_agent.state_backend, record_agent.backend_fingerprint)
  returning a.* into agent_row;
  if found and cluster.status = 'ONLINE' then
    return agent_row;
  end if;

  perform from public.clusters c where c.id = cluster.id for no key update;
  conflict := tendril.backend_conflict(cluster.id, named, record_agent.state_backend, record_agent.backend_fingerprint);
  insert into public.agents as a (cluster_id, name, version, state_backend, backend_fingerprint, jobs, status, refused_reason)
  values (cluster.id, named, record_agent.version, record_agent.state_backend, record_agent.backend_fingerprint, record_agent.jobs,
    case when conflict is null then 'ACTIVE' else 'REFUSED' end, conflict)
  on conflict on constraint agents_pkey do update set
    version = excluded.version, state_backend = excluded.state_backend, backend_fingerprint = excluded.backend_fingerprint,
    jobs = excluded.jobs, status = excluded.status, refused_reason = excluded.refused_reason, last_seen_at = now(),
    started_at = case when public.is_live(a) and a.version = excluded.version then a.started_at else now() end
  returning a.* into agent_row;
  delete from public.agents a where a.cluster_id = cluster.id and a.last_seen_at < now() - interval '1 day';

  if agent_row.status = 'ACTIVE' then
    update public.clusters c
    set status = 'ONLINE', agent_version = case when agent_row.started_at = now() or c.agent_version is null then agent_row.version else c.agent_version end
    where c.id = cluster.id and (c.status <> 'ONLINE' or c.agent_version is null or agent_row.started_at = now() and c.agent_version <> agent_row.version);
  end if;
  return agent_row;
end
$$;
comment on function tendril.record_agent(public.clusters, text, text, text, text, integer) is 'An agent sent a heartbeat: its row, and its cluster ONLINE. The cluster''s row changes only when its status or its agents'' version does.';

create function public.agent_offline(agent text default null) returns void
language plpgsql security definer set search_path = '' as $$
declare
  cluster constant public.clusters := tendril.require_whole_cluster();
begin
  delete from public.agents a where a.cluster_id = cluster.id and a.name = coalesce(nullif(left(btrim(agent_offline.agent), 200), ''), 'unnamed');
  update public.clusters set status = 'OFFLINE'
  where id = cluster.id and status <> 'OFFLINE' and not exists (
    select from public.agents a where a.cluster_id = cluster.id and a.status = 'ACTIVE' and public.is_live(a)
  );
end
$$;
comment on function public.agent_offline(text) is 'An agent ends: sets its cluster OFFLINE, unless another agent of it is live.';

revoke all on function
  public.is_live(public.agents), tendril.backend_conflict(uuid, text, text, text),
  tendril.record_agent(public.clusters, text, text, text, text, integer), public.agent_offline(text)
  from public, anon, authenticated, service_role, tendril_agent;
grant execute on function public.is_live(public.agents) to authenticated, service_role, tendril_agent;
grant execute on function public.agent_offline(text) to tendril_agent, service_role;
