-- Which cluster an agent speaks for: the claim `cluster_id` of its verified JWT.

-- Reads the claims as PostgREST and Realtime leave them, not through auth.jwt(): on a hosted project the owner of this
-- schema cannot give tendril_agent the right to use the schema auth.
create function tendril.claimed_cluster_id() returns uuid
language sql stable set search_path = '' as $$
  select case
    -- A claim that is no UUID means "no cluster": it must not break each statement with a cast error.
    when claim ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' then claim::uuid
  end
  from (
    select nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'cluster_id' as claim
  ) as jwt
$$;
comment on function tendril.claimed_cluster_id() is 'The cluster_id that the caller''s JWT claims, or null. Says nothing about whether that cluster exists.';

-- Security definer: the policies of clusters use it, so it must see the table past them.
create function tendril.agent_cluster_id() returns uuid
language sql stable security definer set search_path = '' as $$
  select id from public.clusters where id = tendril.claimed_cluster_id() and revoked_at is null
$$;
comment on function tendril.agent_cluster_id() is 'The caller''s cluster if it exists and is not revoked, otherwise null, which no row matches. For policies: wrap it as (select …).';

revoke all on function tendril.claimed_cluster_id(), tendril.agent_cluster_id() from public, anon, authenticated, service_role;
grant execute on function tendril.agent_cluster_id() to tendril_agent;

create policy "An agent reads its own cluster" on public.clusters
  for select to tendril_agent using (id = (select tendril.agent_cluster_id()));
