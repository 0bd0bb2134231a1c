-- What becomes of deployments that no agent continues: their agent fell silent, they waited too long, their cluster was revoked.
--
-- Before apply began nothing was changed: the job is queued again, once. After it began only the agent can report what
-- happened: the job shows phase UNKNOWN after a minute, ends as FAILED/AGENT_LOST with its long lease, and is never run
-- again by itself. An agent that comes back with the same claim_token still replaces AGENT_LOST by the true result.

create table tendril.reaper (
  only_one boolean primary key default true check (only_one),
  scheduled_at timestamptz,
  ran_at timestamptz
);
insert into tendril.reaper default values;
comment on table tendril.reaper is 'One row: when reap_lost_agents() was last called (by a schedule), and when all clusters were last checked.';
alter table tendril.reaper enable row level security;
revoke all on table tendril.reaper from public, anon, authenticated, service_role, tendril_agent;

create function tendril.lost_agent_message(deployment public.deployments) returns text
language sql stable set search_path = '' as $$
  select format('The agent %s fell silent in phase %s of attempt %s. ',
      coalesce(deployment.claimed_by, 'without a name'), deployment.phase, deployment.attempt)
    || case
      when tendril.apply_began(deployment.phase)
        then 'Resources may exist that are not in the state, and a state lock may still be held; check both before you run it again.'
      when deployment.phase = 'PLAN' then 'Nothing was changed, but a state lock may still be held.'
      else 'Nothing was changed, and no state lock was held.'
    end
$$;
comment on function tendril.lost_agent_message(public.deployments) is 'The error_message of a deployment whose agent fell silent.';

create function tendril.reap_silent(only_cluster uuid) returns integer
language plpgsql set search_path = '' as $$
declare
  lost public.deployments;
  revoked boolean;
  code text;
  reaped integer := 0;
begin
  for lost in
    select d.* from public.deployments d
    join tendril.leases l on l.deployment_id = d.id
    where d.status = 'PROCESSING'
      and (only_cluster is null or l.cluster_id = only_cluster)
      and l.last_heartbeat_at < now() - interval '60 seconds'
      and (l.last_heartbeat_at < now() - tendril.lease_length(d.phase) or tendril.apply_began(d.phase) and d.phase <> 'UNKNOWN')
    order by l.last_heartbeat_at
    limit 500
    -- Several heartbeats reap at once; each takes what no other holds. A lease that is being extended is none of a lost agent,
    -- and from here on none can be: the state machine looks at it again.
    for update of d, l skip locked
  loop
    -- Its agent may have sent a heartbeat since the list was made.
    continue when tendril.silence(lost) <= case when tendril.apply_began(lost.phase) then interval '60 seconds' else tendril.lease_length(lost.phase) end;
    revoked := exists (select from public.clusters c where c.id = lost.cluster_id and c.revoked_at is not null);
    code := case when revoked then 'CLUSTER_REVOKED' else 'AGENT_LOST' end;
    if tendril.silence(lost) <= tendril.lease_length(lost.phase) then
      -- The message names the phase, which this overwrites.
      update public.deployments set phase = 'UNKNOWN', error_message = tendril.lost_agent_message(lost) where id = lost.id;
    elsif tendril.apply_began(lost.phase) then
      update public.deployments set status = 'FAILED', error_code = code,
        error_message = case when revoked then 'The cluster was revoked. ' else '' end
          || case when lost.phase = 'UNKNOWN' and lost.error_message is not null then lost.error_message else tendril.lost_agent_message(lost) end
      where id = lost.id;
    elsif lost.cancel_requested_at is not null then
      update public.deployments set status = 'CANCELLED', error_code = 'CANCELLED',
        error_message = 'Cancelled. ' || tendril.lost_agent_message(lost)
      where id = lost.id;
    elsif tendril.may_run_again(lost) and not revoked then
      update public.deployments set status = 'QUEUED' where id = lost.id;
    else
      update public.deployments set status = 'FAILED', error_code = code,
        error_message = case when revoked then 'The cluster was revoked. ' else '' end || tendril.lost_agent_message(lost)
      where id = lost.id;
    end if;
    reaped := reaped + 1;
  end loop;
  return reaped;
end
$$;
comment on function tendril.reap_silent(uuid) is 'Ends or requeues the deployments of agents that fell silent; of one cluster, or of all when null.';

create function tendril.end_queued(only_cluster uuid) returns integer
language plpgsql set search_path = '' as $$
declare
  waiting public.deployments;
  ended integer := 0;
begin
  for waiting in
    select d.* from public.deployments d
    where d.status = 'QUEUED' and d.queue_expires_at <= now() and (only_cluster is null or d.cluster_id = only_cluster)
    union all
    select d.* from public.clusters c
    join public.deployments d on d.cluster_id = c.id and d.status = 'QUEUED'
    where c.revoked_at is not null and (only_cluster is null or c.id = only_cluster)
    limit 1000
  loop
    perform from public.deployments d where d.id = waiting.id and d.status = 'QUEUED' for update skip locked;
    continue when not found or tendril.queue_ended(waiting) is null;
    update public.deployments set status = 'FAILED', error_code = tendril.queue_ended(waiting),
      error_message = case tendril.queue_ended(waiting)
        when 'TIMED_OUT' then format('No agent claimed it within %s seconds (config_snapshot.timeouts.queue). Nothing was changed.', waiting.config_snapshot #>> '{timeouts,queue}')
        else 'The cluster was revoked before an agent claimed it. Nothing was changed; queue it on another cluster.' end
    where id = waiting.id;
    ended := ended + 1;
  end loop;
  return ended;
end
$$;
comment on function tendril.end_queued(uuid) is 'Ends QUEUED deployments that waited too long or whose cluster was revoked; of one cluster, or of all when null.';

create function tendril.end_unapproved(only_cluster uuid) returns integer
language plpgsql set search_path = '' as $$
declare
  waiting public.deployments;
  ended integer := 0;
begin
  for waiting in
    select d.* from public.deployments d
    where d.status = 'PROCESSING' and d.approval_expires_at < now() and (only_cluster is null or d.cluster_id = only_cluster)
      and tendril.approval_expired(d)
    limit 500
    for update skip locked
  loop
    update public.deployments set status = 'FAILED', error_code = 'APPROVAL_EXPIRED',
      error_message = format('Nobody approved the plan within %s seconds (config_snapshot.approval_expires). Nothing was changed.', waiting.config_snapshot ->> 'approval_expires')
    where id = waiting.id;
    ended := ended + 1;
  end loop;
  return ended;
end
$$;
comment on function tendril.end_unapproved(uuid) is 'Ends deployments whose plan nobody approved in time; of one cluster, or of all when null.';

create function tendril.reap(only_cluster uuid) returns integer
language sql volatile set search_path = '' as $$
  select tendril.end_unapproved(only_cluster) + tendril.reap_silent(only_cluster) + tendril.end_queued(only_cluster)
$$;
comment on function tendril.reap(uuid) is 'Moves on what nobody else moves on; of one cluster, or of all when null. Returns how many deployments it moved.';

create function tendril.mark_offline() returns integer
language plpgsql set search_path = '' as $$
declare
  offline integer;
begin
  with silent as (
    select c.id from public.clusters c
    where c.status = 'ONLINE' and not exists (
      select from public.agents a where a.cluster_id = c.id and a.status = 'ACTIVE' and public.is_live(a)
    )
    order by c.id
    for no key update skip locked
  )
  update public.clusters c set status = 'OFFLINE' from silent where c.id = silent.id;
  get diagnostics offline = row_count;
  return offline;
end
$$;
comment on function tendril.mark_offline() is 'Clusters that have no live agent are OFFLINE.';

create function public.reap_lost_agents() returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  update tendril.reaper set scheduled_at = now(), ran_at = now() where only_one;
  return jsonb_build_object('reaped', tendril.reap(null), 'offline', tendril.mark_offline());
end
$$;
comment on function public.reap_lost_agents() is 'Ends or requeues the deployments of lost agents of all clusters, ends what waited too long, and marks silent clusters OFFLINE: {"reaped": n, "offline": n}. For service_role and pg_cron.';

-- Where there is no schedule, or while it is broken, the heartbeat of any running agent does the work for all clusters.
create function tendril.reap_for_all() returns void
language plpgsql set search_path = '' as $$
begin
  perform from tendril.reaper where ran_at is null or ran_at < now() - interval '15 seconds' for update skip locked;
  if found then
    update tendril.reaper set ran_at = now() where only_one;
    perform tendril.reap(null), tendril.mark_offline();
  end if;
end
$$;
comment on function tendril.reap_for_all() is 'Reaps for all clusters if nobody did within the last 15 seconds.';

create function public.reaper_status() returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_build_object('scheduled', coalesce(r.scheduled_at > now() - interval '5 minutes', false), 'scheduled_at', r.scheduled_at, 'ran_at', r.ran_at)
  from tendril.reaper r
$$;
comment on function public.reaper_status() is 'Whether a schedule calls reap_lost_agents(): {"scheduled", "scheduled_at", "ran_at"}. Without one a cluster with a single agent has nobody to notice its death.';

revoke all on function
  tendril.lost_agent_message(public.deployments), tendril.reap_silent(uuid), tendril.end_queued(uuid), tendril.end_unapproved(uuid),
  tendril.reap(uuid), tendril.mark_offline(), public.reap_lost_agents(), tendril.reap_for_all(), public.reaper_status()
  from public, anon, authenticated, service_role, tendril_agent;
grant execute on function public.reap_lost_agents() to service_role;
grant execute on function public.reaper_status() to authenticated, service_role, tendril_agent;
