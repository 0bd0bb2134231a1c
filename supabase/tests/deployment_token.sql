-- The token of one run: it reaches its deployment, and nothing else.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(31);

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

insert into deployments (id, cluster_id, config_snapshot) select pg_temp.id('d' || n), pg_temp.id('c1'), format('{"template": "hello", "stack": "s%s"}', n)::jsonb from generate_series(1, 3) as n;
call pg_temp.act_as('agent c1');
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('1' || right(id::text, 1)), claimed_by = 'a' where id in (pg_temp.id('d1'), pg_temp.id('d2'))$$);
create procedure pg_temp.act_as_run(deployment jsonb) language plpgsql as $$
begin
  perform set_config('tests.role', 'tendril_agent', true);
  perform set_config('tests.claims', jsonb_build_object('role', 'tendril_agent', 'cluster_id', pg_temp.id('c1'), 'sub', pg_temp.id('0e'), 'deployment_id', deployment)::text, true);
end
$$;
call pg_temp.act_as_run(to_jsonb(pg_temp.id('d1')));
select is(pg_temp.list('select right(id::text, 2) from deployments'), '(d1)', 'it sees its deployment');
select is(pg_temp.list('select state_key from stacks'), '(hello.s1)', 'and its stack');
select is(pg_temp.try($$update deployments set phase = 'PLAN', claim_token = pg_temp.id('11') where id = pg_temp.id('d1')$$), 'rows: 1', 'it reports progress');
select is(pg_temp.try($$update deployments set phase = 'PLAN', claim_token = pg_temp.id('12') where id = pg_temp.id('d2')$$), 'rows: 0', 'of no other');
select is(pg_temp.try($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('13') where id = pg_temp.id('d3')$$), 'rows: 0', 'it claims nothing');
select is(pg_temp.try($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk) values (pg_temp.id('d1'), 1, 1, 'stdout', 'x') on conflict (deployment_id, attempt, seq) do nothing$$), 'rows: 1', 'it appends its log');
select is(pg_temp.try($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk) values (pg_temp.id('d2'), 1, 1, 'stdout', 'x')$$), '42501', 'and no other');
call pg_temp.act_as('agent c1');
call pg_temp.run($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk) values (pg_temp.id('d2'), 1, 1, 'stdout', 'x')$$);
call pg_temp.act_as_run(to_jsonb(pg_temp.id('d1')));
select is(pg_temp.list('select count(*) from deployment_logs'), '(1)', 'it counts its own chunks');
select is(pg_temp.list('select right(deployment_id::text, 2) from (select deployment_id from deployment_logs) as l'), '(d1)', 'and sees its own chunks');
select is(pg_temp.list($$select agent_store_changes(pg_temp.id('d1'), pg_temp.id('11'), '[{"position": 1, "address": "a", "action": "create"}]')$$), '(1)', 'it stores its plan');
select is(pg_temp.try($$select agent_store_changes(pg_temp.id('d2'), pg_temp.id('12'), '[]')$$), 'TD001', 'and no other');
update tendril.leases set last_heartbeat_at = now() - interval '30 seconds';
select alike(pg_temp.list($$select agent_heartbeat('1', array[pg_temp.id('11'), pg_temp.id('12')], 'x') #>> '{claims,0,mine}'$$), '(true)', 'its heartbeat');
select is((select string_agg(right(deployment_id::text, 2), ' ') from tendril.leases where last_heartbeat_at = now()), 'd1', 'extends its own lease');
select is((select count(*) from agents), 0::bigint, 'it is no agent');
select is(pg_temp.try('select agent_offline()'), '42501', 'cannot set the cluster OFFLINE');
select is(pg_temp.try('select agent_wants_broadcasts()'), '42501', 'cannot request broadcasts');
select is(pg_temp.try($$select agent_publish_templates('[]')$$), '42501', 'publishes no templates');
select alike(pg_temp.list($$select agent_hold_state('hello.s1', 'a', 'x')$$), '%true%', 'it may hold its state');
select is(left(pg_temp.error($$select agent_hold_state('hello.s2', 'a', 'x')$$), 5), 'TD008', 'and no other');
select is(pg_temp.list($$select agent_release_state('hello.s2', 'a')$$), '(f)', 'nor release one');
select is(pg_temp.try($$update deployments set status = 'SUCCESS', claim_token = pg_temp.id('11') where id = pg_temp.id('d1')$$), 'rows: 1', 'it ends its deployment');
call pg_temp.act_as_run('"nonsense"');
select is(pg_temp.list('select id from deployments'), 'nothing', 'a claim that is no id reaches nothing');
call pg_temp.act_as_run('{"a": 1}');
select is(pg_temp.list('select id from deployments'), 'nothing', 'whatever it is');
call pg_temp.act_as_run(to_jsonb(pg_temp.id('d3')));
select is(left(pg_temp.error($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('13') where id = pg_temp.id('d3')$$), 5), '42501', 'not even its own deployment is claimed by it');

-- What the Edge Function calls.
call pg_temp.act_as('service_role');
select is(pg_temp.list($$select exchange_claim(pg_temp.id('d2'), pg_temp.id('12'))$$), '("{""result"": ""granted"", ""cluster_id"": ""00000000-0000-4000-8000-0000000000c1"", ""deployment_id"": ""00000000-0000-4000-8000-0000000000d2""}")', 'a claim that holds is granted');
select is(pg_temp.list($$select exchange_claim(pg_temp.id('d1'), pg_temp.id('11')) ->> 'result'$$), '(granted)', 'one that ended just now too');
select is(pg_temp.list($$select exchange_claim(pg_temp.id('d2'), pg_temp.id('11')) ->> 'result'$$), '(refused)', 'the claim of another deployment is refused');
select is(pg_temp.list($$select exchange_claim(pg_temp.id('d3'), null) ->> 'result'$$), '(refused)', 'so is none');
call pg_temp.act_as('agent c1');
select is(pg_temp.try($$select exchange_claim(pg_temp.id('d2'), pg_temp.id('12'))$$), '42501', 'an agent exchanges no claims itself');
call pg_temp.act_as('alice');
select is(pg_temp.try($$select exchange_claim(pg_temp.id('d2'), pg_temp.id('12'))$$), '42501', 'nor does a user');
call pg_temp.run($$update clusters set revoked_at = now() where id = pg_temp.id('c1')$$);
call pg_temp.act_as('service_role');
select is(pg_temp.list($$select exchange_claim(pg_temp.id('d2'), pg_temp.id('12')) ->> 'result'$$), '(revoked)', 'a revoked cluster is answered so');

select * from finish();
rollback;
