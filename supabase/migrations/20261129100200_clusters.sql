-- A cluster is a place where one agent (or several replicas of it) runs.
--
-- The row changes when something that users see changes. What changes with each heartbeat is in
-- public.agents, which is not published: see the view cluster_status.

create table public.clusters (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null default auth.uid() references auth.users (id) on delete cascade,
  name text not null,
  api_key_hash text,
  api_key_hash_next text,
  status text not null default 'PENDING',
  agent_version text,
  retention_days integer,
  revoked_at timestamptz,
  created_at timestamptz not null default now(),

  constraint clusters_name_length check (char_length(name) between 1 and 100),
  constraint clusters_status_known check (status in ('PENDING', 'ONLINE', 'OFFLINE')),
  constraint clusters_api_key_hash_is_sha256 check (api_key_hash ~ '^[0-9a-f]{64}$'),
  constraint clusters_api_key_hash_next_is_sha256 check (api_key_hash_next ~ '^[0-9a-f]{64}$'),
  constraint clusters_retention_is_1_to_3650_days check (retention_days between 1 and 3650)
);

comment on table public.clusters is 'Where agents run. One row per customer cluster; owned by a user.';
comment on column public.clusters.user_id is 'Owner. Set at insert, never changed.';
comment on column public.clusters.name is 'For people; 1 to 100 characters.';
comment on column public.clusters.api_key_hash is 'SHA-256 of the agent''s API key, 64 lower-case hex digits. Written by the owner, readable by service_role only.';
comment on column public.clusters.api_key_hash_next is 'SHA-256 of the next API key: while both are set both keys work, so a key is changed without downtime.';
comment on column public.clusters.status is 'PENDING until the first heartbeat, then ONLINE or OFFLINE. Written by heartbeat and reaper, when it changes.';
comment on column public.clusters.agent_version is 'Version of the agent that started last. All agents: public.agents.';
comment on column public.clusters.retention_days is 'After how many days finished deployments are deleted, with logs and changes; 1 to 3650, null for never. See prune().';
comment on column public.clusters.revoked_at is 'When the owner revoked the cluster. Final: from then on its agents read and write nothing.';

-- Leading column of the owner's policy.
create index clusters_user_id on public.clusters (user_id);
-- An agent shows its key alone; the exchange finds the cluster by the hash.
create unique index clusters_api_key_hash on public.clusters (api_key_hash) where api_key_hash is not null;
create unique index clusters_api_key_hash_next on public.clusters (api_key_hash_next) where api_key_hash_next is not null;

-- Older projects grant everything on new tables to the API roles, newer ones nothing. Start from nothing everywhere.
revoke all on table public.clusters from public, anon, authenticated, service_role, tendril_agent;
alter table public.clusters enable row level security;

grant select (id, user_id, name, status, agent_version, retention_days, revoked_at, created_at),
      insert (id, user_id, name, api_key_hash, api_key_hash_next, retention_days),
      update (name, api_key_hash, api_key_hash_next, retention_days, revoked_at)
  on public.clusters to authenticated;
grant select (id, name, status, agent_version, retention_days, revoked_at, created_at) on public.clusters to tendril_agent;
grant select, insert, update, delete on public.clusters to service_role;

-- `(select …)` makes the planner run the function once per statement, not once per row.
create policy "A user reads own clusters" on public.clusters
  for select to authenticated using (user_id = (select auth.uid()));
create policy "A user adds own clusters" on public.clusters
  for insert to authenticated with check (user_id = (select auth.uid()));
create policy "A user changes own clusters" on public.clusters
  for update to authenticated using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));

-- Revocation takes the database's time and is final. Row level security cannot compare old and new; a trigger can.
create function tendril.keep_revocation() returns trigger
language plpgsql set search_path = '' as $$
begin
  if old.revoked_at is not null then
    new.revoked_at := old.revoked_at;
  elsif new.revoked_at is not null then
    new.revoked_at := now();
    new.status := 'OFFLINE';
  end if;
  return new;
end
$$;
comment on function tendril.keep_revocation() is 'A revoked cluster stays revoked; make a new one instead.';

-- What waits for an agent that will not come any more ends at once. Security definer: the owner of a cluster ends no
-- deployments.
create function tendril.end_queue_of_revoked() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  perform tendril.end_queued(new.id);
  return null;
end
$$;
comment on function tendril.end_queue_of_revoked() is 'QUEUED deployments of a cluster that is revoked end as FAILED, CLUSTER_REVOKED.';
revoke all on function tendril.keep_revocation(), tendril.end_queue_of_revoked() from public, anon, authenticated, service_role, tendril_agent;

create trigger keep_revocation before update of revoked_at on public.clusters
  for each row execute function tendril.keep_revocation();
create trigger z_end_queue_of_revoked after update of revoked_at on public.clusters
  for each row when (old.revoked_at is null and new.revoked_at is not null) execute function tendril.end_queue_of_revoked();
