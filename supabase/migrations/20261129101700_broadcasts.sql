-- Broadcasts: an agent receives its jobs on a private channel of its cluster, `cluster:<id>`. Realtime checks each row change
-- against the policies once for every agent that listens, one after the other; it checks a private channel once, when it is
-- joined, and delivers in a fifth of the time.
--
-- A broadcast is a row in realtime.messages, stored for days. So only clusters whose agents request them have any; an agent repeats the request
-- each hour, and its request ends a day after the last time.

create table tendril.broadcast_requests (
  cluster_id uuid primary key references public.clusters (id) on delete cascade,
  expires_at timestamptz not null
);
comment on table tendril.broadcast_requests is 'Clusters whose agents requested broadcasts. Not a setting of the cluster: its agents may differ, and each is served.';
alter table tendril.broadcast_requests enable row level security;
revoke all on table tendril.broadcast_requests from public, anon, authenticated, service_role, tendril_agent;

create function tendril.broadcasts_installed() returns boolean
language sql stable set search_path = '' as $$
  select to_regprocedure('realtime.send(jsonb, text, text, boolean)') is not null and exists (
    select from pg_catalog.pg_policy p
    where p.polrelid = to_regclass('realtime.messages') and p.polname = 'An agent receives broadcasts of its cluster'
  )
$$;
comment on function tendril.broadcasts_installed() is 'Whether agents can receive broadcasts.';

-- A fresh project has no realtime.messages until Realtime first connects. Heartbeats call this until it is done.
create function tendril.install_broadcasts() returns text
language plpgsql set search_path = '' as $$
begin
  if to_regclass('realtime.messages') is null or to_regprocedure('realtime.topic()') is null
      or to_regprocedure('realtime.send(jsonb, text, text, boolean)') is null then
    return 'realtime.messages or realtime.send is not there yet: Realtime makes them when it first connects to this database';
  end if;

  -- Before it lets a role into a private channel, Realtime looks as that role into the table of the messages. On a hosted
  -- project nobody but Supabase can grant the schema realtime, but the rights of `anon` can be handed on, and contain it.
  -- They add nothing to what an agent may do: it has the publishable key, and whoever has that is `anon`.
  if not exists (
    select from pg_catalog.pg_auth_members m where m.roleid = 'anon'::regrole and m.member = 'tendril_agent'::regrole
  ) then
    alter role tendril_agent inherit;
    grant anon to tendril_agent;
  end if;

  -- To receive, not to send: there is no policy for insert. Realtime evaluates it for each channel, as realtime.topic().
  if not tendril.broadcasts_installed() then
    execute $policy$
      create policy "An agent receives broadcasts of its cluster" on realtime.messages
        for select to tendril_agent
        using (extension = 'broadcast' and (select realtime.topic()) = 'cluster:' || (select tendril.agent_cluster_id()))
    $policy$;
  end if;
  -- Where agents are `authenticated` (supabase/optional), their twin of it.
  if to_regprocedure('tendril.is_agent()') is not null and not exists (
    select from pg_catalog.pg_policy p
    where p.polrelid = to_regclass('realtime.messages') and p.polname = 'An agent as authenticated receives broadcasts of its cluster'
  ) then
    execute $policy$
      create policy "An agent as authenticated receives broadcasts of its cluster" on realtime.messages
        for select to authenticated
        using (extension = 'broadcast' and (select tendril.is_agent())
          and (select realtime.topic()) = 'cluster:' || (select tendril.agent_cluster_id()))
    $policy$;
  end if;
  return null;
exception when insufficient_privilege or duplicate_object or undefined_object then
  return sqlerrm;
end
$$;
comment on function tendril.install_broadcasts() is 'Lets agents receive broadcasts of their cluster, once Realtime has made its table. Null: done. Otherwise why not.';

create function public.install_broadcasts() returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  problem constant text := tendril.install_broadcasts();
begin
  return jsonb_build_object('installed', problem is null, 'problem', problem);
end
$$;
comment on function public.install_broadcasts() is 'The same, for service_role: {"installed", "problem"}.';

create function public.agent_wants_broadcasts() returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  cluster constant public.clusters := tendril.require_whole_cluster();
  problem text;
begin
  if not tendril.broadcasts_installed() then
    problem := tendril.install_broadcasts();
  end if;
  if problem is not null then
    raise exception using
      errcode = 'feature_not_supported',
      message = format('agents cannot receive broadcasts in this database yet: %s', problem),
      hint = 'With --intake auto the agent follows row changes meanwhile. Each heartbeat tries to install them; `tendril-agent doctor` shows the SQL.';
  end if;
  insert into tendril.broadcast_requests as r (cluster_id, expires_at) values (cluster.id, now() + interval '1 day')
  on conflict on constraint broadcast_requests_pkey do update set expires_at = excluded.expires_at;
  return jsonb_build_object('topic', 'cluster:' || cluster.id, 'event', 'deployment', 'seconds', 86400);
end
$$;
comment on function public.agent_wants_broadcasts() is 'Requests broadcasts of changes of the caller''s deployments: {"topic", "event", "seconds"}, the last being how long the request is valid.';

-- Whatever fails here, the statement that is broadcast stands.
create function tendril.broadcast(cluster_id uuid, payload jsonb) returns void
language plpgsql set search_path = '' as $$
begin
  if payload is not null and exists (
    select from tendril.broadcast_requests r where r.cluster_id = broadcast.cluster_id and r.expires_at > now()
  ) then
    perform realtime.send(payload, 'deployment', 'cluster:' || broadcast.cluster_id, true);
  end if;
exception when others then
  -- Agents find it by their next list.
  raise warning 'deployments of cluster % were not broadcast: %', broadcast.cluster_id, sqlerrm;
end
$$;
comment on function tendril.broadcast(uuid, jsonb) is 'One message to the agents of a cluster, if they requested broadcasts.';

-- One message for each cluster, however many jobs a statement queues. Security definer: users write no messages.
create function tendril.broadcast_queued() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  perform tendril.broadcast(by_cluster.cluster_id, case when by_cluster.jobs = 1
    then jsonb_build_object('id', by_cluster.id, 'status', 'QUEUED') else jsonb_build_object('jobs', by_cluster.jobs, 'status', 'QUEUED') end)
  from (
    select q.cluster_id, count(*) as jobs, min(q.id::text) as id from queued q where q.status = 'QUEUED' group by q.cluster_id
  ) as by_cluster;
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
  tendril.broadcasts_installed(), tendril.install_broadcasts(), public.install_broadcasts(), public.agent_wants_broadcasts(),
  tendril.broadcast(uuid, jsonb), tendril.broadcast_queued(), tendril.broadcast_changed()
  from public, anon, authenticated, service_role, tendril_agent;
grant execute on function public.agent_wants_broadcasts() to tendril_agent, service_role;
grant execute on function public.install_broadcasts() to service_role;

create trigger d_broadcast_queued after insert on public.deployments
  referencing new table as queued for each statement execute function tendril.broadcast_queued();
-- What an agent cannot know otherwise; also that a job ended, which frees its stack. Progress is not sent: the agent wrote it.
create trigger d_broadcast_changed after update on public.deployments
  for each row when (
    old.status is distinct from new.status
    or old.cancel_requested_at is distinct from new.cancel_requested_at
    or old.approved_plan is distinct from new.approved_plan
  )
  execute function tendril.broadcast_changed();

do $$
declare
  problem constant text := tendril.install_broadcasts();
begin
  if problem is not null then
    raise notice 'no broadcasts yet (%). The first heartbeat after that installs them.', problem;
  end if;
end
$$;
