-- The heartbeat of an agent: one call does everything. Idle agents call it each 60 s, others each 15 s.
--
-- It changes no row that is published, but for a cluster that comes ONLINE.

-- Security definer: an agent has no right to write clusters or leases itself.
create function public.agent_heartbeat(
  version text, claim_tokens uuid[] default '{}', agent text default null,
  state_backend text default null, backend_fingerprint text default null
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  cluster constant public.clusters := tendril.require_cluster();
  only_deployment constant uuid := tendril.claimed_deployment_id();
  agent_row public.agents;
  reaped integer := 0;
  claims jsonb;
begin
  -- The run of one deployment is no agent: it extends its own lease, and that is all.
  if only_deployment is null then
    agent_row := tendril.record_agent(cluster, agent, left(coalesce(version, ''), 100), nullif(left(state_backend, 40), ''), left(backend_fingerprint, 128), coalesce(cardinality(claim_tokens), 0));
  end if;

  -- Before the reaper looks: a late heartbeat saves its claims.
  update tendril.leases l set last_heartbeat_at = now()
  from public.deployments d
  where d.claim_token = any (claim_tokens) and d.cluster_id = cluster.id and d.status = 'PROCESSING'
    and d.id = coalesce(only_deployment, d.id) and l.deployment_id = d.id;

  if only_deployment is null then
    reaped := tendril.reap(cluster.id);
    perform tendril.reap_for_all();
  end if;

  select coalesce(jsonb_agg(jsonb_build_object(
    'claim_token', claimed.token,
    'deployment_id', d.id,
    'mine', coalesce(d.status = 'PROCESSING', false),
    'cancel_requested', coalesce(d.status = 'PROCESSING' and d.cancel_requested_at is not null, false),
    'lease_expires_at', case when d.status = 'PROCESSING' then l.last_heartbeat_at + tendril.lease_length(d.phase) end,
    'status', d.status,
    'phase', d.phase,
    'approved_plan', case when d.status = 'PROCESSING' then d.approved_plan end,
    'approval_expires_at', case when d.status = 'PROCESSING' then d.approval_expires_at end
  ) order by claimed.place), '[]')
  into claims
  from unnest(claim_tokens) with ordinality as claimed (token, place)
  left join public.deployments d on d.claim_token = claimed.token and d.cluster_id = cluster.id and d.id = coalesce(only_deployment, d.id)
  left join tendril.leases l on l.deployment_id = d.id;

  return jsonb_build_object(
    'now', now(),
    'contract', public.contract_version(),
    'cluster', jsonb_build_object('id', cluster.id, 'status', case when agent_row.status = 'ACTIVE' then 'ONLINE' else cluster.status end),
    'claims', claims,
    'reaped', reaped,
    'queued', (select count(*) from public.deployments d where d.cluster_id = cluster.id and d.status = 'QUEUED'),
    'broadcast', tendril.broadcasts_installed() or only_deployment is null and tendril.install_broadcasts() is null,
    'reaper', public.reaper_status(),
    'refused', case when agent_row.status = 'REFUSED' then jsonb_build_object('code', 'TD009', 'message', agent_row.refused_reason,
      'hint', 'Give all agents of a cluster the same state backend with the same settings, or run one agent.') end
  );
end
$$;
comment on function public.agent_heartbeat(text, uuid[], text, text, text) is 'Sets the cluster ONLINE, extends the leases of these claims, ends or requeues lost jobs; returns per claim whether it is still held, whether a cancel was asked and which plan was approved. agent: the caller''s name. refused: this agent''s state backend contradicts another live agent''s, and it may claim nothing.';

revoke all on function public.agent_heartbeat(text, uuid[], text, text, text) from public, anon, authenticated, service_role, tendril_agent;
grant execute on function public.agent_heartbeat(text, uuid[], text, text, text) to tendril_agent, service_role;

-- The heartbeat returns for each claim what was approved. This is for the moment at which a plan expires.
create function public.agent_approval(deployment_id uuid, claim_token uuid) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  deployment constant public.deployments := tendril.require_claim(deployment_id, claim_token);
begin
  return jsonb_build_object(
    'phase', deployment.phase,
    'approved_plan', deployment.approved_plan,
    'seconds_left', extract(epoch from deployment.approval_expires_at - clock_timestamp())
  );
end
$$;
comment on function public.agent_approval(uuid, uuid) is 'How the approval of a held deployment''s plan stands: {"phase", "approved_plan", "seconds_left"}. seconds_left: by the database''s clock; null where it never expires. Error: TD001 not the claim.';
revoke all on function public.agent_approval(uuid, uuid) from public, anon, authenticated, service_role, tendril_agent;
grant execute on function public.agent_approval(uuid, uuid) to tendril_agent, service_role;
