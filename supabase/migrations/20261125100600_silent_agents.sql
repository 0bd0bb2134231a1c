-- Agents that fall silent, come back, or are one of several.
--
-- * What an agent hears of a job that was ended while it was silent: no progress. A job that was given up before its apply
--   began must not begin it afterwards.
-- * An agent that is back takes back what was said of its silence.
-- * A plan that waits for approval costs no attempt when its agent goes for good: nothing ran, and nothing failed.
-- * The good-bye of one agent does not take a cluster OFFLINE that has another.

create function tendril.may_run_again(deployment public.deployments) returns boolean
language sql stable set search_path = '' as $$
  select case when deployment.phase = 'APPROVAL' then true
    else deployment.attempt < 2 and not tendril.apply_began(deployment.phase) end
$$;
comment on function tendril.may_run_again(public.deployments) is 'Whether a lost agent''s job is queued again: before its apply began, once; while its plan waits for approval, always.';
revoke all on function tendril.may_run_again(public.deployments) from public, anon, authenticated, service_role, tendril_agent;
-- Called by the trigger with the rights of whoever writes the row.
grant execute on function tendril.may_run_again(public.deployments) to authenticated, service_role, tendril_agent;

create or replace function tendril.enforce_state() returns trigger
language plpgsql set search_path = '' as $$
declare
  note constant text := current_setting('tendril.shown_token', true);
  token_shown constant boolean := coalesce(note = new.id || '/' || coalesce(new.claim_token::text, ''), false);
  holds_claim constant boolean := token_shown and coalesce(new.claim_token = old.claim_token, false);
  -- Only the reaper judges that an agent is lost. Agents and users come in as these roles; it does not.
  may_reap constant boolean := current_user not in ('anon', 'authenticated', 'tendril_agent');
  wish constant text := new.status;
begin
  perform set_config('tendril.shown_token', '', true);

  if (new.id, new.cluster_id, new.config_snapshot, new.created_at)
     is distinct from (old.id, old.cluster_id, old.config_snapshot, old.created_at) then
    perform tendril.refuse_transition(old, 'another job',
      'id, cluster_id, config_snapshot and created_at never change. Queue a new deployment.');
  end if;

  -- The database's clock and counter; whatever the statement said.
  new.attempt := old.attempt;
  new.claimed_at := old.claimed_at;
  new.started_at := old.started_at;
  new.finished_at := old.finished_at;
  new.cancel_requested_at := coalesce(old.cancel_requested_at, case when new.cancel_requested_at is not null then now() end);
  -- An end must never fail because its explanation is long.
  new.error_message := left(new.error_message, 8192);

  if old.status = 'QUEUED' then
    if wish = 'PROCESSING' then
      if not token_shown or new.claim_token is null then
        perform tendril.refuse_claim_token(old, null);
      end if;
      new.attempt := old.attempt + 1;
      new.claimed_at := now();
      new.started_at := now();
      new.phase := 'CLAIMED';
      new.lease_expires_at := now() + tendril.lease_length(new.phase);
      new.error_code := null;
      new.error_message := null;
    elsif token_shown and new.claim_token is not null then
      -- An agent whose job was queued again, reporting what became of its own attempt.
      perform tendril.refuse_claim_token(old, new.claim_token);
    elsif wish = 'CANCELLED' or (wish = 'QUEUED' and new.cancel_requested_at is not null) then
      new := old;
      new.status := 'CANCELLED';
      new.cancel_requested_at := now();
      new.finished_at := now();
      new.error_code := 'CANCELLED';
      new.error_message := 'Cancelled before an agent claimed it.';
    elsif new is distinct from old then
      perform tendril.refuse_transition(old, wish, 'A queued deployment is first claimed: status PROCESSING with a new claim_token.');
    end if;

  elsif old.status = 'PROCESSING' then
    if holds_claim then
      if wish = 'PROCESSING' then
        new.phase := coalesce(new.phase, old.phase);
        if tendril.apply_began(old.phase) and not tendril.apply_began(new.phase) then
          perform tendril.refuse_transition(old, 'phase ' || new.phase, 'Apply has begun; there is no way back before it.');
        end if;
        new.lease_expires_at := now() + tendril.lease_length(new.phase);
        if old.phase = 'UNKNOWN' and new.phase <> 'UNKNOWN' then
          new.error_message := null; -- The agent is back: what was said of its silence is over.
        end if;
      elsif wish in ('SUCCESS', 'FAILED', 'CANCELLED') then
        new.finished_at := now();
        new.lease_expires_at := null;
        if wish = 'SUCCESS' then
          new.error_code := null;
          new.error_message := null;
        end if;
      else
        perform tendril.refuse_transition(old, wish, 'End it as SUCCESS, FAILED or CANCELLED. Only a lost agent''s job is queued again.');
      end if;
    elsif to_jsonb(new) - '{cancel_requested_at,lease_expires_at}'::text[]
        = to_jsonb(old) - '{cancel_requested_at,lease_expires_at}'::text[] and not token_shown then
      null; -- A user's cancel, or a heartbeat that extends the lease.
    elsif not may_reap or token_shown and new.claim_token is not null then
      perform tendril.refuse_claim_token(old, case when token_shown then new.claim_token end);
    elsif wish = 'PROCESSING' and new.phase = 'UNKNOWN' and tendril.apply_began(old.phase)
        and tendril.silent_since(old) > tendril.lease_length(null) then
      null; -- Fell silent after apply began: the lease goes on, the doubt is shown.
    elsif old.lease_expires_at < now() and wish in ('FAILED', 'CANCELLED') then
      new.claim_token := old.claim_token;
      new.finished_at := now();
      new.lease_expires_at := null;
    elsif old.lease_expires_at < now() and wish = 'QUEUED' and tendril.may_run_again(old) then
      -- Back to how it was queued; the count of attempts stays.
      new.claim_token := null;
      new.claimed_by := null;
      new.claimed_at := null;
      new.lease_expires_at := null;
      new.started_at := null;
      new.phase := null;
      new.plan_summary := null;
      new.cost := null;
      new.cost_status := null;
      new.outputs := null;
      new.log_count := 0;
    else
      perform tendril.refuse_transition(old, wish, 'Without the claim_token only a job whose agent fell silent is ended or queued again.');
    end if;

  else -- finished
    if token_shown and not holds_claim then
      perform tendril.refuse_claim_token(old, new.claim_token);
    elsif holds_claim and wish = old.status and new.phase is distinct from old.phase and not tendril.apply_began(old.phase) then
      -- An agent that does not know yet that its job was ended while it was silent, about to go on with it. The user was told
      -- that nothing was changed, and that has to stay true.
      perform tendril.refuse_transition(old, 'phase ' || coalesce(new.phase, 'none'), 'It was ended while its agent was silent: stop working on it.');
    elsif holds_claim and old.status = 'FAILED' and old.error_code = 'AGENT_LOST'
        and wish in ('SUCCESS', 'FAILED', 'CANCELLED') then
      new.finished_at := now();
      new.lease_expires_at := null;
      if wish = 'SUCCESS' then
        new.error_code := null;
        new.error_message := null;
      end if;
    elsif wish <> old.status then
      perform tendril.refuse_transition(old, wish, 'It is finished. Queue a new deployment.');
    elsif holds_claim
        or to_jsonb(new) - 'cancel_requested_at' = to_jsonb(old) - 'cancel_requested_at' then
      new := old; -- The same end reported twice, or a cancel that came too late: nothing changes.
    else
      perform tendril.refuse_claim_token(old, null);
    end if;
  end if;

  return new;
end
$$;

create or replace function tendril.reap(only_cluster uuid) returns integer
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
      -- The phase that is lost by this is kept in the words.
      update public.deployments set phase = 'UNKNOWN', error_message = tendril.lost_words(silent) where id = silent.id;
    elsif tendril.apply_began(silent.phase) then
      update public.deployments set status = 'FAILED', error_code = 'AGENT_LOST',
        error_message = case when silent.phase = 'UNKNOWN' and silent.error_message is not null
          then silent.error_message else tendril.lost_words(silent) end
      where id = silent.id;
    elsif silent.cancel_requested_at is not null then
      update public.deployments set status = 'CANCELLED', error_code = 'CANCELLED',
        error_message = 'Cancelled. ' || tendril.lost_words(silent)
      where id = silent.id;
    elsif tendril.may_run_again(silent) and exists (
      select from public.clusters c where c.id = silent.cluster_id and c.revoked_at is null
    ) then
      update public.deployments set status = 'QUEUED' where id = silent.id;
    else
      update public.deployments set status = 'FAILED', error_code = 'AGENT_LOST',
        error_message = tendril.lost_words(silent)
      where id = silent.id;
    end if;
    reaped := reaped + 1;
  end loop;
  return reaped;
end
$$;

-- Which agents a cluster has. Unlogged: after a crash of the server each is heard again within seconds.
create unlogged table tendril.agents (
  cluster_id uuid not null references public.clusters (id) on delete cascade,
  name text not null,
  seen_at timestamptz not null default now(),
  primary key (cluster_id, name)
);
comment on table tendril.agents is 'Agents that were heard of within the last hour, by the names that they give themselves.';
alter table tendril.agents enable row level security;
revoke all on table tendril.agents from public, anon, authenticated, service_role, tendril_agent;

-- Two functions of one name would be one too many for PostgREST: the last argument is new, and has a default for agents that
-- do not know it.
drop function public.agent_heartbeat(text, uuid[]);
drop function public.agent_offline();

create function public.agent_heartbeat(version text, claim_tokens uuid[] default '{}', agent text default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  cluster constant public.clusters := tendril.require_cluster();
  reaped integer;
  claims jsonb;
begin
  update public.clusters
  set status = 'ONLINE', last_seen_at = now(), agent_version = left(agent_heartbeat.version, 100)
  where id = cluster.id;

  if agent_heartbeat.agent is not null then
    insert into tendril.agents as a (cluster_id, name) values (cluster.id, left(agent_heartbeat.agent, 200))
    on conflict on constraint agents_pkey do update set seen_at = now();
    delete from tendril.agents a where a.cluster_id = cluster.id and a.seen_at < now() - interval '1 hour';
  end if;

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
comment on function public.agent_heartbeat(text, uuid[], text) is 'Sets the cluster ONLINE, extends the leases of these claims, moves on the cluster''s lost jobs; says per claim whether it is still held and whether a cancel was asked. agent: the caller''s name.';

create function public.agent_offline(agent text default null) returns void
language plpgsql security definer set search_path = '' as $$
declare
  cluster constant public.clusters := tendril.require_cluster();
begin
  delete from tendril.agents a where a.cluster_id = cluster.id and a.name = left(agent_offline.agent, 200);
  update public.clusters set status = 'OFFLINE'
  where id = cluster.id and not exists (
    select from tendril.agents a where a.cluster_id = cluster.id and a.seen_at > now() - interval '60 seconds'
  );
end
$$;
comment on function public.agent_offline(text) is 'An agent''s good-bye: sets its cluster OFFLINE, unless another agent of it was heard within the last minute.';

revoke all on function public.agent_heartbeat(text, uuid[], text), public.agent_offline(text)
  from public, anon, authenticated, service_role, tendril_agent;
grant execute on function public.agent_heartbeat(text, uuid[], text), public.agent_offline(text) to tendril_agent, service_role;
do $$
begin
  -- Where agents are `authenticated` (supabase/optional).
  if to_regprocedure('tendril.is_agent()') is not null then
    grant execute on function public.agent_heartbeat(text, uuid[], text), public.agent_offline(text) to authenticated;
    grant execute on function tendril.may_run_again(public.deployments) to authenticated;
    grant update (plan_sha256) on public.deployments to authenticated;
  end if;
end
$$;
