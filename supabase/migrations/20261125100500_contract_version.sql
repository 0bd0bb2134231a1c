-- Which contract this database holds: a number that agents and portals can compare with the one they were built for.
--
--   1   everything up to 20261123101700; the heartbeat does not say it
--   2   the heartbeat and contract_version() say it
--
-- Raise it in the migration that adds what an agent or a portal may want to know of: a column it writes, a status, a phase,
-- a field of the heartbeat. An agent works with the contract before its own and with the one after it.

create function public.contract_version() returns integer
language sql immutable parallel safe set search_path = '' as $$
  select 2
$$;
comment on function public.contract_version() is 'The version of Tendril''s contract that this database holds. Agents and portals work with the one before theirs and the one after it.';

revoke all on function public.contract_version() from public, anon, authenticated, service_role, tendril_agent;
grant execute on function public.contract_version() to authenticated, service_role, tendril_agent;

create or replace function public.agent_heartbeat(version text, claim_tokens uuid[] default '{}') returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  cluster constant public.clusters := tendril.require_cluster();
  reaped integer;
  claims jsonb;
begin
  update public.clusters
  set status = 'ONLINE', last_seen_at = now(), agent_version = left(agent_heartbeat.version, 100)
  where id = cluster.id;

  -- Before the reaper looks: a late heartbeat saves its claims.
  update public.deployments
  set lease_expires_at = now() + tendril.lease_length(phase)
  where cluster_id = cluster.id and status = 'PROCESSING' and claim_token = any (claim_tokens);

  reaped := tendril.reap(cluster.id);

  select coalesce(jsonb_agg(jsonb_build_object(
    'claim_token', asked.token,
    'deployment_id', d.id,
    'mine', coalesce(d.status = 'PROCESSING', false),
    'cancel_requested', coalesce(d.status = 'PROCESSING' and d.cancel_requested_at is not null, false),
    'lease_expires_at', d.lease_expires_at,
    'status', d.status,
    'phase', d.phase
  ) order by asked.place), '[]')
  into claims
  from unnest(claim_tokens) with ordinality as asked (token, place)
  left join public.deployments d on d.claim_token = asked.token and d.cluster_id = cluster.id;

  return jsonb_build_object(
    'now', now(),
    'contract', public.contract_version(),
    'cluster', jsonb_build_object('id', cluster.id, 'status', 'ONLINE'),
    'claims', claims,
    'reaped', reaped
  );
end
$$;
