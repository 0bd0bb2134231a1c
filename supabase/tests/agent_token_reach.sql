-- What somebody can and cannot do who has taken the token of one cluster's agent: the rest of the table in
-- tendril-agent/docs/security.md, whose other lines other files prove.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(29);

-- Fixtures: alice owns clusters c1, c2 and the revoked c9; bob owns c3. Each cluster has an agent. `act_as` sets the role and
-- the JWT of what follows; `run` runs a statement as that role; `try` returns its SQLSTATE or "rows: n"; `list` returns the rows
-- of a query. The assertions themselves run as the owner: a role under test needs no right on pgTAP.
grant tendril_agent to current_user;
create function pg_temp.id(short text) returns uuid language sql immutable as $$
  select ('00000000-0000-4000-8000-0000000000' || short)::uuid
$$;
create procedure pg_temp.act_as(who text) language plpgsql as $$
declare
  role constant text := case when who in ('alice', 'bob') then 'authenticated' when who like 'agent%' then 'tendril_agent' else who end;
begin
  perform set_config('tests.role', case role when 'owner' then 'none' else role end, true);
  perform set_config('tests.claims', jsonb_strip_nulls(jsonb_build_object(
    'role', role,
    'sub', case who when 'alice' then pg_temp.id('0a') when 'bob' then pg_temp.id('0b') else pg_temp.id('0e') end,
    'cluster_id', case when who like 'agent c_' then pg_temp.id(right(who, 2)) end
  ))::text, true);
end
$$;
create function pg_temp.try(statement text) returns text language plpgsql as $$
declare
  n bigint;
begin
  perform set_config('request.jwt.claims', current_setting('tests.claims'), true), set_config('role', current_setting('tests.role'), true);
  execute statement;
  get diagnostics n = row_count;
  perform set_config('role', 'none', true);
  return 'rows: ' || n;
exception when others then
  return sqlstate;
end
$$;
create procedure pg_temp.run(statement text) language plpgsql as $$
begin
  perform set_config('request.jwt.claims', current_setting('tests.claims'), true), set_config('role', current_setting('tests.role'), true);
  execute statement;
  perform set_config('role', 'none', true);
end
$$;
create function pg_temp.list(query text) returns text language plpgsql as $$
declare
  found text;
begin
  perform set_config('request.jwt.claims', current_setting('tests.claims'), true), set_config('role', current_setting('tests.role'), true);
  execute format('select string_agg(q::text, '' '') from (%s) as q', query) into found;
  perform set_config('role', 'none', true);
  return coalesce(found, 'nothing');
exception when others then
  return sqlstate || ' ' || sqlerrm;
end
$$;
insert into auth.users (id, email) values (pg_temp.id('0a'), 'alice@tests.invalid'), (pg_temp.id('0b'), 'bob@tests.invalid');
insert into clusters (id, user_id, name, revoked_at) values
  (pg_temp.id('c1'), pg_temp.id('0a'), 'c1', null), (pg_temp.id('c2'), pg_temp.id('0a'), 'c2', null),
  (pg_temp.id('c9'), pg_temp.id('0a'), 'c9', now()), (pg_temp.id('c3'), pg_temp.id('0b'), 'c3', null);

insert into deployments (id, cluster_id, config_snapshot)
select pg_temp.id('d' || n), pg_temp.id('c' || n), '{"template": "hello", "variables": {"password": "s3cret"}}' from unnest(array[1, 2, 3, 9]) as n;
insert into deployments (id, cluster_id, config_snapshot) values (pg_temp.id('da'), pg_temp.id('c1'), '{"template": "hello"}');
-- Two agents of one cluster: another replica holds `da`.
call pg_temp.act_as('agent c1');
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('11'), claimed_by = 'replica' where id = pg_temp.id('da')$$);

-- What it cannot do. Nothing beside its tables and functions.
select is(pg_temp.try('select id from auth.users'), '42501', 'an agent cannot read users');
select is(pg_temp.try('select api_key_hash_next from clusters'), '42501', 'an agent cannot read the next key''s hash');
select is(pg_temp.try('select 1 from tendril.cluster_keys'), '42501', 'an agent cannot read what is known of keys');
select is(pg_temp.try('select 1 from tendril.key_exchanges'), '42501', 'an agent cannot read who exchanged keys');
select is((select string_agg(c.oid::regclass::text, ' ' order by c.oid::regclass::text) from pg_class c
  where c.relnamespace in ('public'::regnamespace, 'tendril'::regnamespace, 'auth'::regnamespace) and c.relkind in ('r', 'p', 'v', 'm', 'f')
    and has_schema_privilege('tendril_agent', c.relnamespace, 'USAGE')
    and (has_any_column_privilege('tendril_agent', c.oid, 'SELECT, INSERT, UPDATE') or has_table_privilege('tendril_agent', c.oid, 'DELETE, TRUNCATE'))
    and not exists (select from pg_depend e where e.objid = c.oid and e.deptype = 'e')),
  'agents claimable_deployments cluster_status cluster_templates clusters deployment_logs deployments stacks', 'what an agent reaches, and nothing else');
select is(has_schema_privilege('tendril_agent', s, 'CREATE'), false, format('an agent makes nothing in schema %s', s)) from unnest(array['public', 'tendril']) as s;
select is((select string_agg(rolname, ' ') from pg_roles where rolname in ('authenticated', 'service_role', 'postgres', 'authenticator') and pg_has_role('tendril_agent', oid, 'MEMBER')),
  null, 'an agent cannot become a user, nor service_role');

-- The owner's functions, and those of the project.
select is(pg_temp.try(format('select public.%I(pg_temp.id(''c1''))', f)), '42501', 'an agent cannot call ' || f)
from unnest(array['create_cluster_key', 'rotate_cluster_key', 'promote_cluster_key', 'revoke_cluster_key', 'cluster_key_status']) as f;
select is(pg_temp.try('select public.reap_lost_agents()'), '42501', 'an agent cannot reap all clusters');
select is(pg_temp.try('select tendril.reap(null)'), '42501', 'not by the rule behind it either');

-- Revocation.
select is(pg_temp.try($$update clusters set revoked_at = now() where id = pg_temp.id('c1')$$), '42501', 'an agent cannot revoke a cluster');
select is(pg_temp.try('update clusters set api_key_hash = repeat($$a$$, 64)'), '42501', 'an agent cannot set a key');
call pg_temp.act_as('agent c9');
select is(pg_temp.try($$update clusters set revoked_at = null where id = pg_temp.id('c9')$$), '42501', 'a revoked agent cannot take its revocation back');
select is(pg_temp.try($$select agent_heartbeat('1')$$), 'TD004', 'a revoked agent is not ONLINE again');

-- Live rows and channels: Realtime applies the same policies, as the agent's role with the agent's claims.
call pg_temp.act_as('agent c1');
insert into realtime.messages (topic, extension, event, payload, private) values ('cluster:' || pg_temp.id('c3'), 'broadcast', 'deployment', '{}', true);
set local realtime.topic = 'cluster:00000000-0000-4000-8000-0000000000c3';
select matches(pg_temp.try('select topic from realtime.messages'), '^(rows: 0|42501)$', 'an agent receives nothing on the private channel of another cluster');
select is(pg_temp.try($$insert into realtime.messages (topic, extension, event, payload, private) values ('cluster:' || pg_temp.id('c3'), 'broadcast', 'deployment', '{}', true)$$), '42501', 'nor sends there');
set local realtime.topic = 'room:portal';
select matches(pg_temp.try('select topic from realtime.messages'), '^(rows: 0|42501)$', 'nor receives from any private channel of the portal');

-- What it can do.
select is(pg_temp.list($$select config_snapshot #>> '{variables,password}' as p from deployments where id = pg_temp.id('d1')$$), '(s3cret)', 'an agent reads what its cluster is asked to run, with the secrets in it');
select is(pg_temp.list($$select claim_token from deployments where id = pg_temp.id('da')$$), '(' || pg_temp.id('11') || ')', 'an agent reads the claims of the cluster''s other agents');
select is(pg_temp.try($$update deployments set claim_token = pg_temp.id('11'), status = 'FAILED', error_code = 'INTERNAL', error_message = 'forged' where id = pg_temp.id('da')$$), 'rows: 1', 'and can end their jobs with them');
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('01') where id = pg_temp.id('d1')$$);
select alike(pg_temp.try($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk) values (pg_temp.id('d1'), 1, 1, 'stdout', e'Apply complete! Resources: 0 added.\n')$$), 'rows: %', 'an agent writes any log it likes for its cluster''s jobs');
select is(pg_temp.try($$update deployments set claim_token = pg_temp.id('01'), status = 'SUCCESS', outputs = '{"url": "https://attacker.invalid"}' where id = pg_temp.id('d1')$$), 'rows: 1', 'and any result');
select is((select status from clusters where id = pg_temp.id('c1')), 'PENDING', 'a cluster is not ONLINE by that');
call pg_temp.run($$select agent_heartbeat('9.9.9 (not really)')$$);
select is((select agent_version from clusters where id = pg_temp.id('c1')), '9.9.9 (not really)', 'an agent reports any version of itself');

select * from finish();
rollback;
