-- The plan as rows: who stores them, how they move on, who reads them.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(27);

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

create function pg_temp.error(statement text) returns text language plpgsql as $$
begin
  call pg_temp.run(statement);
  return 'none';
exception when others then
  perform set_config('role', 'none', true);
  return sqlstate || ' ' || sqlerrm;
end
$$;

insert into deployments (id, cluster_id, config_snapshot) values (pg_temp.id('d1'), pg_temp.id('c1'), '{"template": "hello"}'), (pg_temp.id('d2'), pg_temp.id('c1'), '{"template": "hello"}');
call pg_temp.act_as('agent c1');
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('11') where id = pg_temp.id('d1')$$);
create function pg_temp.store(changes text, token text default '11') returns text language sql as $$
  select pg_temp.list(format('select agent_store_changes(%L, %L, %L)', pg_temp.id('d1'), pg_temp.id(token), changes))
$$;
create function pg_temp.report(changes text, token text default '11') returns text language sql as $$
  select pg_temp.list(format('select agent_report_changes(%L, %L, %L)', pg_temp.id('d1'), pg_temp.id(token), changes))
$$;
select is(pg_temp.store('[{"position": 1, "address": "a.b", "resource_type": "a", "provider": "p", "action": "create", "attributes": [{"path": "id", "unknown": true}]}, {"position": 2, "address": "c.d", "action": "delete"}, {"position": 3, "address": "a.b", "action": "update", "drift": true}]'), '(3)', 'three changes are stored');
select is(pg_temp.store('[{"position": 2, "address": "x.y", "action": "create"}, {"position": 4, "address": "e.f", "action": "update"}]'), '(1)', 'a repeated one is stored once');
select is((select string_agg(concat_ws(' ', position, address, action, drift, status), ', ' order by position) from deployment_changes), '1 a.b create f PLANNED, 2 c.d delete f PLANNED, 3 a.b update t PLANNED, 4 e.f update f PLANNED', 'as they were first');
select is(left(pg_temp.store('[]', '99'), 5), 'TD001', 'not without the claim');
select is(left(pg_temp.store('{}'), 5), '22023', 'a list is a list');
select is(left(pg_temp.store('[{"position": 9, "address": "x", "action": "explode"}]'), 5), '23514', 'an action is one of those');
select is(left(pg_temp.store('[{"position": 5002, "address": "x", "action": "create"}]'), 5), '23514', 'five thousand and a marker');
select is(pg_temp.store('[{"position": 5001, "address": "…", "action": "truncated", "attributes": {"omitted": 12}}]'), '(1)', 'the marker');
select is(left(pg_temp.store(format('[{"position": 9, "address": "x", "action": "create", "attributes": ["%s"]}]', repeat('x', 16384))), 5), '23514', 'a row is at most 16 KiB');
select is(pg_temp.report('[{"position": 1, "status": "RUNNING", "started_at": "2026-01-01T00:00:00Z"}, {"address": "c.d", "status": "RUNNING"}]'), '(2)', 'two begin');
select is(pg_temp.report('[{"position": 1, "status": "RUNNING"}]'), '(0)', 'reported twice it changes nothing');
select is(pg_temp.report('[{"address": "a.b", "status": "DONE", "seconds": 1.5}, {"address": "c.d", "status": "FAILED", "error": "denied"}]'), '(2)', 'they end');
select is((select string_agg(concat_ws(' ', status, started_at = '2026-01-01T00:00:00Z', seconds, error), ', ' order by position) from deployment_changes where position < 4), 'DONE t 1.5, FAILED denied, PLANNED', 'what drifted is no change of the apply');
select is(pg_temp.report('[{"position": 1, "status": "RUNNING"}]'), '(0)', 'what has ended does not run again');
select is(left(pg_temp.report('[{"position": 4, "status": "EXPLODED"}]'), 5), '23514', 'a status is one of those');
select is(left(pg_temp.report('[]', '99'), 5), 'TD001', 'not without the claim');
select is(pg_temp.try(format('select agent_stack_applied(%L, %L, 3)', pg_temp.id('d1'), pg_temp.id('11'))), 'rows: 1', 'the plan is applied');
select is((select string_agg(position || ' ' || status, ', ' order by position) from deployment_changes), '1 DONE, 2 FAILED, 3 PLANNED, 4 DONE, 5001 PLANNED', 'what had no end of its own is done; drift and the marker are no changes');
call pg_temp.act_as('agent c2');
select is(left(pg_temp.store('[]'), 5), 'TD001', 'not by an agent of another cluster');
select is(left(pg_temp.report('[]'), 5), 'TD001', 'that reports nothing either');
select is(pg_temp.try('select 1 from deployment_changes'), '42501', 'an agent reads no changes');
call pg_temp.act_as('agent c9');
select is(left(pg_temp.store('[]'), 5), 'TD004', 'nor a revoked one');
call pg_temp.act_as('alice');
select is(pg_temp.list('select count(*) from deployment_changes'), '(5)', 'its user reads them');
select is(pg_temp.try($$select agent_store_changes(pg_temp.id('d1'), pg_temp.id('11'), '[]')$$), '42501', 'and writes none');
select is(pg_temp.try('delete from deployment_changes'), '42501', 'nor deletes any');
call pg_temp.act_as('bob');
select is(pg_temp.list('select count(*) from deployment_changes'), '(0)', 'another user reads none');
call pg_temp.act_as('anon');
select is(pg_temp.try('select 1 from deployment_changes'), '42501', 'nor does anon');

select * from finish();
rollback;
