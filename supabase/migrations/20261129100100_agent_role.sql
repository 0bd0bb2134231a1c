-- The database role that agents run as, and the private schema of the rules.
--
-- An agent's JWT has `"role": "tendril_agent"`; PostgREST and Realtime switch to that role, so what an agent may do is
-- what this role was granted, and nothing it shares with users.

do $$
begin
  if not exists (select from pg_catalog.pg_roles where rolname = 'tendril_agent') then
    -- Roles belong to the server, not to the database: another database of this server may create it at the same moment.
    begin
      create role tendril_agent nologin noinherit;
      comment on role tendril_agent is 'Tendril: an agent in a customer''s cluster. Scope: the claim cluster_id of its JWT.';
      -- The same limit that Supabase gives to `authenticated`; PostgREST applies the settings of the role it switches to.
      alter role tendril_agent set statement_timeout = '8s';
    exception when duplicate_object or unique_violation then
      null;
    end;
  end if;

  if not exists (
    select from pg_catalog.pg_auth_members m
    where m.roleid = 'tendril_agent'::regrole and m.member = 'authenticator'::regrole
  ) then
    grant tendril_agent to authenticator;
  end if;
end
$$;

-- Not among the exposed schemas: nothing in it can be called or read over HTTP.
create schema if not exists tendril;
comment on schema tendril is 'Tendril: rules that policies and triggers use. Not exposed by the API.';

revoke all on schema tendril from public;
-- Triggers run with the rights of whoever writes the row, and look the rules up by name.
grant usage on schema tendril to authenticated, service_role, tendril_agent;
grant usage on schema public to authenticated, service_role, tendril_agent;
