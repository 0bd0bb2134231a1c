-- The last heartbeat of the agent of a running deployment. Each heartbeat changes it, so it is not in the published row.

create table tendril.leases (
  deployment_id uuid primary key references public.deployments (id) on delete cascade,
  cluster_id uuid not null,
  last_heartbeat_at timestamptz not null default now()
) with (fillfactor = 50); -- Each heartbeat is an update in place.
comment on table tendril.leases is 'One row for each PROCESSING deployment: the last sign of life of the agent that holds it.';
create index leases_cluster on tendril.leases (cluster_id);
alter table tendril.leases enable row level security;
revoke all on table tendril.leases from public, anon, authenticated, service_role, tendril_agent;

create function tendril.apply_began(phase text) returns boolean
language sql immutable parallel safe set search_path = '' as $$
  select coalesce(phase in ('APPLY', 'DESTROY', 'OUTPUT', 'REPORT', 'UNKNOWN'), false)
$$;
comment on function tendril.apply_began(text) is 'Whether infrastructure may have been changed: from then on a job is never run again by itself.';

-- While a plan waits for approval nothing runs: an agent that is restarted meanwhile still has the job, and with it the plan.
create function tendril.lease_length(phase text) returns interval
language sql immutable parallel safe set search_path = '' as $$
  select case when tendril.apply_began(phase) or phase = 'APPROVAL' then interval '10 minutes' else interval '60 seconds' end
$$;
comment on function tendril.lease_length(text) is 'How long a claim lives after its agent''s last sign of life.';

-- Security definer, all three: agents write leases through the state machine only.
create function tendril.extend_lease(deployment public.deployments) returns void
language sql security definer set search_path = '' as $$
  insert into tendril.leases as l (deployment_id, cluster_id) values (deployment.id, deployment.cluster_id)
  on conflict on constraint leases_pkey do update set last_heartbeat_at = now()
$$;
comment on function tendril.extend_lease(public.deployments) is 'The agent that holds the deployment has sent a heartbeat just now.';

create function tendril.end_lease(deployment public.deployments) returns void
language sql security definer set search_path = '' as $$
  delete from tendril.leases l where l.deployment_id = deployment.id
$$;
comment on function tendril.end_lease(public.deployments) is 'Nobody holds the deployment any more.';

create function tendril.silence(deployment public.deployments) returns interval
language sql stable security definer set search_path = '' as $$
  select now() - coalesce((select l.last_heartbeat_at from tendril.leases l where l.deployment_id = deployment.id), deployment.claimed_at)
$$;
comment on function tendril.silence(public.deployments) is 'Time since the last sign of life of the agent that holds this deployment.';

revoke all on function
  tendril.apply_began(text), tendril.lease_length(text), tendril.extend_lease(public.deployments),
  tendril.end_lease(public.deployments), tendril.silence(public.deployments)
  from public, anon, authenticated, service_role, tendril_agent;
-- Called by the state machine with the rights of whoever writes the row.
grant execute on function
  tendril.apply_began(text), tendril.lease_length(text), tendril.extend_lease(public.deployments),
  tendril.end_lease(public.deployments), tendril.silence(public.deployments)
  to authenticated, service_role, tendril_agent;
