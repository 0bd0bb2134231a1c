-- What becomes of the jobs of agents that fell silent.
--
-- Before apply began nothing was changed: the job is queued again, once. After it began nobody but the agent knows what
-- happened: the job shows phase UNKNOWN after a minute, ends as FAILED/AGENT_LOST with its long lease, and is never run
-- again by itself. An agent that comes back with the same claim_token still replaces AGENT_LOST by the true result.

create function tendril.reap(only_cluster uuid) returns integer
language plpgsql set search_path = '' as $$
declare
  silent public.deployments;
  reaped integer := 0;
begin
  for silent in
    select d.* from public.deployments d
    where d.status = 'PROCESSING'
      and (only_cluster is null or d.cluster_id = only_cluster)
      and (d.lease_expires_at < now()
        or tendril.apply_began(d.phase) and d.phase <> 'UNKNOWN'
           and tendril.silent_since(d) > tendril.lease_length(null))
    order by d.lease_expires_at
    limit 500
    -- Several heartbeats reap at once; each takes what no other holds.
    for update skip locked
  loop
    if silent.lease_expires_at >= now() then
      update public.deployments set phase = 'UNKNOWN' where id = silent.id;
    elsif tendril.apply_began(silent.phase) then
      update public.deployments set status = 'FAILED', error_code = 'AGENT_LOST',
        error_message = 'The agent fell silent after apply began. Resources may exist that are not in the state; look before you run it again.'
      where id = silent.id;
    elsif silent.cancel_requested_at is not null then
      update public.deployments set status = 'CANCELLED', error_code = 'CANCELLED',
        error_message = 'Cancelled; the agent fell silent before apply began, nothing was changed.'
      where id = silent.id;
    elsif silent.attempt < 2 and exists (
      select from public.clusters c where c.id = silent.cluster_id and c.revoked_at is null
    ) then
      update public.deployments set status = 'QUEUED' where id = silent.id;
    else
      update public.deployments set status = 'FAILED', error_code = 'AGENT_LOST',
        error_message = 'The agent fell silent before apply began; nothing was changed.'
      where id = silent.id;
    end if;
    reaped := reaped + 1;
  end loop;
  return reaped;
end
$$;
comment on function tendril.reap(uuid) is 'Moves the jobs of lost agents on; of one cluster, or of all when null. Returns how many it moved.';
revoke all on function tendril.reap(uuid) from public, anon, authenticated, service_role, tendril_agent;

create function public.reap_lost_agents() returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  offline integer;
begin
  with silent as (
    select id from public.clusters
    where status = 'ONLINE' and last_seen_at < now() - interval '60 seconds'
    order by id
    for update skip locked
  )
  update public.clusters c set status = 'OFFLINE' from silent where c.id = silent.id;
  get diagnostics offline = row_count;
  return jsonb_build_object('reaped', tendril.reap(null), 'offline', offline);
end
$$;
comment on function public.reap_lost_agents() is 'Moves on the jobs of lost agents of all clusters and marks silent clusters OFFLINE: {"reaped": n, "offline": n}. For service_role and pg_cron.';
revoke all on function public.reap_lost_agents() from public, anon, authenticated, service_role, tendril_agent;
grant execute on function public.reap_lost_agents() to service_role;
