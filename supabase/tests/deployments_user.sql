-- What users may do with deployments: queue, read, cancel.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(36);

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

insert into deployments (id, cluster_id, config_snapshot) values
  (pg_temp.id('d1'), pg_temp.id('c1'), '{"template": "hello"}'), (pg_temp.id('d3'), pg_temp.id('c3'), '{"template": "hello"}');

-- Queue.
call pg_temp.act_as('alice');
select alike(pg_temp.try($$insert into deployments (id, cluster_id, config_snapshot, status) values (pg_temp.id('d2'), pg_temp.id('c2'), '{"template": "hello", "stack": "prod", "action": "plan", "variables": {"name": "x"}}', 'QUEUED')$$), 'rows: %', 'a user queues a deployment');
select is(pg_temp.try($$insert into deployments (cluster_id, config_snapshot) values (pg_temp.id('c3'), '{"template": "hello"}')$$), '42501', 'not on the cluster of another');
select is(pg_temp.try($$insert into deployments (cluster_id, config_snapshot) values (pg_temp.id('c9'), '{"template": "hello"}')$$), '42501', 'not on a revoked cluster');
select is(pg_temp.try($$insert into deployments (cluster_id, config_snapshot, status) values (pg_temp.id('c1'), '{"template": "hello"}', 'SUCCESS')$$), '42501', 'not with another status');
select is(pg_temp.try($$insert into deployments (cluster_id, config_snapshot, attempt) values (pg_temp.id('c1'), '{"template": "hello"}', 7)$$), '42501', 'not with an attempt');
select is(pg_temp.try($$insert into deployments (cluster_id, config_snapshot, claim_token) values (pg_temp.id('c1'), '{"template": "hello"}', pg_temp.id('01'))$$), '42501', 'not with a claim');
select is(pg_temp.try($$insert into deployments (cluster_id, config_snapshot, created_at) values (pg_temp.id('c1'), '{"template": "hello"}', '2001-01-01')$$), '42501', 'not before others in the queue');

-- The outline of config_snapshot; the error names the broken rule.
create function pg_temp.broken_rule(snapshot jsonb) returns text language plpgsql as $$
declare
  rule text;
begin
  insert into deployments (cluster_id, config_snapshot) values (pg_temp.id('c1'), snapshot);
  return 'none';
exception when check_violation then
  get stacked diagnostics rule = constraint_name;
  return rule;
end
$$;
select alike(pg_temp.try($$insert into deployments (cluster_id, config_snapshot) values (pg_temp.id('c1'), '{"source": {"git": "https://example.org/x.git"}}')$$), 'rows: %', 'a source instead of a template');
select is(pg_temp.broken_rule('[]'), 'config_snapshot_is_an_object', 'a snapshot is an object');
select is(pg_temp.broken_rule('null'), 'config_snapshot_is_an_object', 'a snapshot is not null');
select is(pg_temp.broken_rule('{}'), 'config_snapshot_names_a_template_or_source', 'a snapshot names a template');
select is(pg_temp.broken_rule('{"template": 1}'), 'config_snapshot_names_a_template_or_source', 'a template is text');
select is(pg_temp.broken_rule('{"source": {"git": 1}}'), 'config_snapshot_names_a_template_or_source', 'a source''s address is text');
select is(pg_temp.broken_rule('{"template": "x", "action": "nuke"}'), 'config_snapshot_action_known', 'an action is plan, apply or destroy');
select is(pg_temp.broken_rule('{"template": "x", "action": null}'), 'config_snapshot_action_known', 'an action is not null');
select is(pg_temp.broken_rule('{"template": "x", "variables": []}'), 'config_snapshot_variables_are_an_object', 'variables are an object');
select is(pg_temp.broken_rule(jsonb_build_object('template', repeat('x', 262144))), 'config_snapshot_at_most_256_kib', 'a snapshot has a limit');

-- Read.
select is(pg_temp.try($$select id from deployments where id = pg_temp.id('d3')$$), 'rows: 0', 'a user does not see deployments of others');
select is(pg_temp.try($$select id from deployments where id = pg_temp.id('d1')$$), 'rows: 1', 'a user sees own deployments');
select is(pg_temp.try('select claim_token from deployments'), '42501', 'a user cannot read a claim token');
call pg_temp.act_as('bob');
select is(pg_temp.list('select id from deployments'), '(' || pg_temp.id('d3') || ')', 'another user sees only own ones');

-- Change.
select is(pg_temp.try($$update deployments set cancel_requested_at = now() where id = pg_temp.id('d1')$$), 'rows: 0', 'another user cannot cancel');
call pg_temp.act_as('alice');
select is(pg_temp.try($$update deployments set status = 'SUCCESS' where id = pg_temp.id('d1')$$), '42501', 'a user cannot set a status');
select is(pg_temp.try($$update deployments set config_snapshot = '{"template": "other"}' where id = pg_temp.id('d1')$$), '42501', 'a user cannot change what was queued');
select is(pg_temp.try($$update deployments set error_message = 'x' where id = pg_temp.id('d1')$$), '42501', 'a user cannot write results');
select is(pg_temp.try($$update deployments set cluster_id = pg_temp.id('c2') where id = pg_temp.id('d1')$$), '42501', 'a user cannot move a deployment');
select is(pg_temp.try($$delete from deployments where id = pg_temp.id('d1')$$), '42501', 'a user cannot delete a deployment');
select is(pg_temp.try($$update deployments set cancel_requested_at = '2001-01-01' where id = pg_temp.id('d1')$$), 'rows: 1', 'a user cancels a queued deployment');
select is((select row(status, error_code, cancel_requested_at, finished_at)::text from deployments where id = pg_temp.id('d1')),
  row('CANCELLED', 'CANCELLED', now(), now())::text, 'it is cancelled at once, by the database''s clock');
call pg_temp.run($$update deployments set cancel_requested_at = null where id = pg_temp.id('d1')$$);
select is((select cancel_requested_at from deployments where id = pg_temp.id('d1')), now(), 'a cancel cannot be taken back');
select is(pg_temp.try($$update deployments set cancel_requested_at = now() where id = pg_temp.id('d3')$$), 'rows: 0', 'a user cannot cancel deployments of others');

-- anon and service_role.
call pg_temp.act_as('anon');
select is(pg_temp.try('select id from deployments'), '42501', 'anon reads nothing');
select is(pg_temp.try($$insert into deployments (cluster_id, config_snapshot) values (pg_temp.id('c1'), '{"template": "x"}')$$), '42501', 'anon queues nothing');
select is(pg_temp.try('update deployments set cancel_requested_at = now()'), '42501', 'anon cancels nothing');
call pg_temp.act_as('service_role');
select is(pg_temp.list($$select count(*) from deployments where id in (pg_temp.id('d1'), pg_temp.id('d3'))$$), '(2)', 'service_role sees deployments of all users');
select alike(pg_temp.try($$delete from deployments where id = pg_temp.id('d1')$$), 'rows: %', 'service_role deletes');

select * from finish();
rollback;
