-- Broadcast intake: an agent is told of its jobs by broadcasts on a private channel of its cluster, `cluster:<id>`, instead of
-- by row changes. Realtime checks each row change against the policies once for every agent that listens, one after the
-- other; it checks a private channel once, when it is joined. Beyond some hundreds of clusters the difference is felt.
--
-- A broadcast is a row in realtime.messages, kept for days. So only clusters that ask have any: an agent that is started
-- with `--intake broadcast` asks, and asks again each hour; the wish ends a day after the last time.

create table tendril.broadcast_wishes (
  cluster_id uuid primary key references public.clusters (id) on delete cascade,
  wanted_until timestamptz not null
);
comment on table tendril.broadcast_wishes is 'Clusters whose agents want broadcasts. A wish, not a setting of the cluster: its agents may differ, and each is served.';
revoke all on table tendril.broadcast_wishes from public, anon, authenticated, service_role, tendril_agent;

create function public.agent_wants_broadcasts() returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  cluster constant public.clusters := tendril.require_cluster();
begin
  if to_regprocedure('realtime.send(jsonb, text, text, boolean)') is null then
    raise exception using
      errcode = 'feature_not_supported',
      message = 'the Realtime of this project sends no broadcasts from the database',
      hint = 'Update Realtime, or start the agent with --intake postgres_changes.';
  end if;
  insert into tendril.broadcast_wishes as w (cluster_id, wanted_until) values (cluster.id, now() + interval '1 day')
  on conflict on constraint broadcast_wishes_pkey do update set wanted_until = excluded.wanted_until;
  return jsonb_build_object('topic', 'cluster:' || cluster.id, 'event', 'deployment', 'seconds', 86400);
end
$$;
comment on function public.agent_wants_broadcasts() is 'Asks for broadcasts of what happens to the caller''s deployments: {"topic", "event", "seconds"}, the last being how long the wish lives.';

-- Tells a cluster's agents, if they want it. Whatever goes wrong here, the statement that is told of stands.
create function tendril.broadcast(cluster_id uuid, payload jsonb) returns void
language plpgsql set search_path = '' as $$
begin
  if exists (
    select from tendril.broadcast_wishes w where w.cluster_id = broadcast.cluster_id and w.wanted_until > now()
  ) then
    perform realtime.send(payload, 'deployment', 'cluster:' || broadcast.cluster_id, true);
  end if;
exception when others then
  -- Agents find it by their next list.
  raise warning 'deployments of cluster % were not broadcast: %', broadcast.cluster_id, sqlerrm;
end
$$;
comment on function tendril.broadcast(uuid, jsonb) is 'One message to the agents of a cluster, if they want any.';

-- One message for each cluster, however many jobs a statement queues. Security definer: users write no messages.
create function tendril.broadcast_queued() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  perform tendril.broadcast(told.cluster_id, case when told.jobs = 1
    then jsonb_build_object('id', told.id, 'status', 'QUEUED') else jsonb_build_object('jobs', told.jobs, 'status', 'QUEUED') end)
  from (
    select q.cluster_id, count(*) as jobs, min(q.id::text) as id from queued q where q.status = 'QUEUED' group by q.cluster_id
  ) as told;
  return null;
end
$$;

create function tendril.broadcast_changed() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  perform tendril.broadcast(new.cluster_id, jsonb_build_object('id', new.id, 'status', new.status, 'attempt', new.attempt));
  return null;
end
$$;

revoke all on function
  public.agent_wants_broadcasts(), tendril.broadcast(uuid, jsonb), tendril.broadcast_queued(), tendril.broadcast_changed()
  from public, anon, authenticated, service_role, tendril_agent;
grant execute on function public.agent_wants_broadcasts() to tendril_agent, service_role;

create trigger d_broadcast_queued after insert on public.deployments
  referencing new table as queued for each statement execute function tendril.broadcast_queued();
-- What an agent must know. Progress and leases are its own doing.
create trigger d_broadcast_changed after update on public.deployments
  for each row when (
    (old.status = 'QUEUED') is distinct from (new.status = 'QUEUED')
    or old.cancel_requested_at is distinct from new.cancel_requested_at
    or old.approved_plan is distinct from new.approved_plan
  )
  execute function tendril.broadcast_changed();

do $$
begin
  if to_regclass('realtime.messages') is null or to_regprocedure('realtime.topic()') is null then
    raise notice 'realtime.messages is not here: no broadcast intake. Apply this part of the migration once Realtime has made it.';
    return;
  end if;

  -- Before it lets a role into a private channel, Realtime looks as that role into the table of the messages. On a hosted
  -- project nobody but Supabase can grant the schema realtime, but the rights of `anon` can be handed on, and contain it.
  -- They add nothing to an agent, which carries the publishable key: whoever has that is `anon`.
  if not exists (
    select from pg_catalog.pg_auth_members m where m.roleid = 'anon'::regrole and m.member = 'tendril_agent'::regrole
  ) then
    alter role tendril_agent inherit;
    grant anon to tendril_agent;
  end if;

  -- To hear, not to speak: there is no policy for insert. Realtime asks for each channel by itself, as realtime.topic().
  execute $policy$
    create policy "An agent hears of its cluster" on realtime.messages
      for select to tendril_agent
      using (extension = 'broadcast' and (select realtime.topic()) = 'cluster:' || (select tendril.agent_cluster_id()))
  $policy$;
  -- Where agents are `authenticated` (supabase/optional), their twin of it.
  if to_regprocedure('tendril.is_agent()') is not null then
    grant execute on function public.agent_wants_broadcasts() to authenticated;
    execute $policy$
      create policy "An agent as authenticated hears of its cluster" on realtime.messages
        for select to authenticated
        using (extension = 'broadcast' and (select tendril.is_agent())
          and (select realtime.topic()) = 'cluster:' || (select tendril.agent_cluster_id()))
    $policy$;
  end if;
exception when insufficient_privilege then
  raise notice 'no policy on realtime.messages (%): no broadcast intake. Create it as the owner of that table.', sqlerrm;
end
$$;
