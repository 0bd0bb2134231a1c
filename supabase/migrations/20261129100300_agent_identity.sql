-- The identity of a caller: the claims of its verified JWT.
--
--   cluster_id      an agent: its cluster
--   deployment_id   in addition: the token of one run. It reaches that deployment and no other

-- Reads the claims as PostgREST and Realtime leave them, not through auth.jwt(): on a hosted project the owner of this
-- schema cannot give tendril_agent the right to use the schema auth.
create function tendril.jwt_claim(name text) returns text
language sql stable set search_path = '' as $$
  select nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> name
$$;
comment on function tendril.jwt_claim(text) is 'A claim of the caller''s JWT as text, or null.';

-- A claim that is no UUID must not break each statement with a cast error.
create function tendril.uuid_or_null(value text) returns uuid
language sql immutable parallel safe set search_path = '' as $$
  select case when value ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' then value::uuid end
$$;
comment on function tendril.uuid_or_null(text) is 'The text as a UUID, or null where it is none.';

create function tendril.claimed_cluster_id() returns uuid
language sql stable set search_path = '' as $$
  select tendril.uuid_or_null(tendril.jwt_claim('cluster_id'))
$$;
comment on function tendril.claimed_cluster_id() is 'The cluster_id that the caller''s JWT claims, or null. It does not mean that the cluster exists.';

-- A claim that names nothing must not open everything: it becomes an id that no row has.
create function tendril.claimed_deployment_id() returns uuid
language sql stable set search_path = '' as $$
  select case when tendril.jwt_claim('deployment_id') is not null
    then coalesce(tendril.uuid_or_null(tendril.jwt_claim('deployment_id')), '00000000-0000-0000-0000-000000000000') end
$$;
comment on function tendril.claimed_deployment_id() is 'The one deployment that the caller''s token reaches, or null: all of its cluster. For policies: wrap it as (select …).';

create function tendril.claimed_user_id() returns uuid
language sql stable set search_path = '' as $$
  select tendril.uuid_or_null(tendril.jwt_claim('sub'))
  where coalesce(tendril.jwt_claim('role'), '') = 'authenticated' and tendril.jwt_claim('cluster_id') is null
$$;
comment on function tendril.claimed_user_id() is 'The user who acts, or null: an agent, the service, or nobody.';

-- Security definer: the policies of clusters use it, so it must see the table past them.
create function tendril.agent_cluster_id() returns uuid
language sql stable security definer set search_path = '' as $$
  select id from public.clusters where id = tendril.claimed_cluster_id() and revoked_at is null
$$;
comment on function tendril.agent_cluster_id() is 'The caller''s cluster if it exists and is not revoked, otherwise null, which no row matches. For policies: wrap it as (select …).';

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

create function tendril.require_whole_cluster() returns public.clusters
language plpgsql stable set search_path = '' as $$
begin
  if tendril.claimed_deployment_id() is not null then
    raise exception using
      errcode = '42501',
      message = 'the token of one deployment cannot act for the whole cluster',
      hint = 'Call this with the token of the agent.';
  end if;
  return tendril.require_cluster();
end
$$;
comment on function tendril.require_whole_cluster() is 'The caller''s cluster, of an agent whose token is not that of one run. Errors: 42501, TD003, TD004.';

create function tendril.own_cluster(cluster_id uuid) returns public.clusters
language plpgsql set search_path = '' as $$
declare
  cluster public.clusters;
begin
  select * into cluster from public.clusters c
  where c.id = own_cluster.cluster_id and c.user_id = (select auth.uid())
  -- Two decisions of an owner do not cross.
  for no key update;
  if not found then
    raise exception using
      errcode = 'TD008',
      message = format('there is no cluster %s of yours', coalesce(cluster_id::text, 'null')),
      hint = 'Give the id of a cluster that you own, as its owner.';
  end if;
  return cluster;
end
$$;
comment on function tendril.own_cluster(uuid) is 'The caller''s cluster, locked. Error: TD008 none.';

revoke all on function
  tendril.jwt_claim(text), tendril.uuid_or_null(text), tendril.claimed_cluster_id(), tendril.claimed_deployment_id(),
  tendril.claimed_user_id(), tendril.agent_cluster_id(), tendril.require_cluster(), tendril.require_whole_cluster(),
  tendril.own_cluster(uuid)
  from public, anon, authenticated, service_role, tendril_agent;
-- Policies and triggers run with the rights of whoever reads or writes the row.
grant execute on function tendril.jwt_claim(text), tendril.uuid_or_null(text), tendril.claimed_deployment_id(), tendril.claimed_user_id()
  to authenticated, service_role, tendril_agent;
grant execute on function tendril.agent_cluster_id() to tendril_agent;

create policy "An agent reads its own cluster" on public.clusters
  for select to tendril_agent using (id = (select tendril.agent_cluster_id()));
