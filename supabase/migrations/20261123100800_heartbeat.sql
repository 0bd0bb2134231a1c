-- How an agent says that it lives: one call each 15 s does all there is to do.

create function tendril.require_cluster() returns public.clusters
language plpgsql stable set search_path = '' as $$
declare
  cluster public.clusters;
begin
  select * into cluster from public.clusters where id = tendril.claimed_cluster_id();
  if not found then
    raise exception using
      errcode = 'TD003',
      message = case when tendril.claimed_cluster_id() is null
        then 'the token has no cluster_id claim that is a UUID'
        else format('there is no cluster %s', tendril.claimed_cluster_id()) end,
      hint = 'Give the agent the token of an existing cluster.';
  elsif cluster.revoked_at is not null then
    raise exception using
      errcode = 'TD004',
      message = format('cluster %s was revoked at %s', cluster.id, cluster.revoked_at),
      hint = 'Register a new cluster and give its token to the agent.';
  end if;
  return cluster;
end
$$;
comment on function tendril.require_cluster() is 'The caller''s cluster. Errors: TD003 none, TD004 revoked.';

-- Security definer: an agent has no right to write clusters or leases itself.
create function public.agent_heartbeat(version text, claim_tokens uuid[] default '{}') returns jsonb
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
    'cluster', jsonb_build_object('id', cluster.id, 'status', 'ONLINE'),
    'claims', claims,
    'reaped', reaped
  );
end
$$;
comment on function public.agent_heartbeat(text, uuid[]) is 'Sets the cluster ONLINE, extends the leases of these claims, moves on the cluster''s lost jobs; says per claim whether it is still held and whether a cancel was asked.';

create function public.agent_offline() returns void
language plpgsql security definer set search_path = '' as $$
declare
  cluster constant public.clusters := tendril.require_cluster();
begin
  update public.clusters set status = 'OFFLINE' where id = cluster.id;
end
$$;
comment on function public.agent_offline() is 'An agent''s good-bye: sets its cluster OFFLINE.';

revoke all on function tendril.require_cluster(), public.agent_heartbeat(text, uuid[]), public.agent_offline()
  from public, anon, authenticated, service_role, tendril_agent;
grant execute on function public.agent_heartbeat(text, uuid[]), public.agent_offline() to tendril_agent, service_role;
