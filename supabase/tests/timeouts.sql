-- Timeouts and what expires: their checks, the queue's end, the approval's end.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(35);

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

create function pg_temp.queue(config text) returns text language sql as $$
  select pg_temp.error(format('insert into deployments (cluster_id, config_snapshot) values (%L, %L)', pg_temp.id('c1'), config))
$$;
call pg_temp.act_as('alice');
select is(pg_temp.queue('{"template": "x", "timeouts": {"queue": 1, "init": 60, "plan": 604800, "apply": 3600, "silence": 600}, "approval_expires": 86400}'), 'none', 'each timeout');
select is(pg_temp.queue('{"template": "x", "timeouts": null, "approval_expires": null}'), 'none', 'null is left out');
select is(pg_temp.queue('{"template": "x", "timeouts": {}}'), 'none', 'none is none');
select is(pg_temp.queue('{"template": "x", "timeouts": 60}'), '23514 config_snapshot.timeouts must be an object, and it is 60', 'a number is no timeouts');
select is(pg_temp.queue('{"template": "x", "timeouts": {"aply": 60}}'), '23514 config_snapshot.timeouts has no "aply"', 'an unknown key is named');
select is(pg_temp.queue(format('{"template": "x", "timeouts": {"plan": %s}}', value)), '23514 config_snapshot.timeouts.plan must be a whole number of seconds from 1 to 604800, and it is ' || value::jsonb::text, 'no seconds: ' || value)
from unnest(array['0', '-1', '604801', '1.5', '"60"', 'true', 'null', '[]', '1e99']) as value;
select is(pg_temp.queue('{"template": "x", "approval_expires": "1h"}'), '23514 config_snapshot.approval_expires must be a whole number of seconds from 1 to 604800, and it is "1h"', 'approval_expires too');
select is(pg_temp.queue('[]'), '23514 new row for relation "deployments" violates check constraint "config_snapshot_is_an_object"', 'what is no object is refused as ever');

-- The queue.
delete from deployments;
insert into deployments (id, cluster_id, config_snapshot) values
  (pg_temp.id('d1'), pg_temp.id('c1'), '{"template": "x", "stack": "s", "timeouts": {"queue": 30}}'), (pg_temp.id('d2'), pg_temp.id('c1'), '{"template": "x", "stack": "s"}');
select is((select queue_expires_at from deployments where id = pg_temp.id('d1')), now() + interval '30 seconds', 'a queued job knows when it expires');
select is(reap_lost_agents() ->> 'reaped', '0', 'not yet');
create procedure pg_temp.set(short text, assignment text) language plpgsql as $$
begin
  alter table public.deployments disable trigger b_enforce_state;
  execute format('update public.deployments set %s where id = %L', assignment, pg_temp.id(short));
  alter table public.deployments enable trigger b_enforce_state;
end
$$;
call pg_temp.act_as('service_role');
select is(left(pg_temp.error($$update deployments set status = 'FAILED', error_code = 'TIMED_OUT' where id = pg_temp.id('d1')$$), 5), 'TD002', 'nobody ends it before');
call pg_temp.set('d1', $$queue_expires_at = now()$$);
call pg_temp.act_as('agent c1');
select alike(pg_temp.error($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('11') where id = pg_temp.id('d1')$$), 'TD006 %waited longer than its timeout%', 'after it nobody claims it');
select is(pg_temp.list('select right(id::text, 2) from claimable_deployments'), '(d2)', 'and it stands in nobody''s way');
select is(reap_lost_agents() ->> 'reaped', '1', 'the reaper ends it');
select is((select concat_ws(' ', status, error_code, error_message) from deployments where id = pg_temp.id('d1')), 'FAILED TIMED_OUT No agent claimed it within 30 seconds (config_snapshot.timeouts.queue). Nothing was changed.', 'with the reason');
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('12') where id = pg_temp.id('d2')$$);
select is((select status from deployments where id = pg_temp.id('d2')), 'PROCESSING', 'the next is claimed');
call pg_temp.run($$update deployments set status = 'SUCCESS', claim_token = pg_temp.id('12') where id = pg_temp.id('d2')$$);

-- The approval.
insert into deployments (id, cluster_id, config_snapshot) values (pg_temp.id('d3'), pg_temp.id('c1'), '{"template": "x", "stack": "s", "approval": true, "approval_expires": 60}');
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('13') where id = pg_temp.id('d3')$$);
call pg_temp.run($$update deployments set phase = 'APPROVAL', plan_sha256 = repeat('a', 64), claim_token = pg_temp.id('13') where id = pg_temp.id('d3')$$);
select is((select approval_expires_at from deployments where id = pg_temp.id('d3')), now() + interval '60 seconds', 'a plan that waits knows when it expires');
call pg_temp.set('d3', $$approval_expires_at = now()$$);
call pg_temp.act_as('alice');
select alike(pg_temp.error($$update deployments set approved_plan = repeat('a', 64) where id = pg_temp.id('d3')$$), 'TD005 the plan of deployment % could be approved until %', 'then it cannot be approved');
select is(reap_lost_agents() ->> 'reaped', '0', 'its agent has a while to end it');
call pg_temp.set('d3', $$approval_expires_at = now() - interval '91 seconds'$$);
select is(reap_lost_agents() ->> 'reaped', '1', 'then the reaper does');
select is((select concat_ws(' ', status, error_code) from deployments where id = pg_temp.id('d3')), 'FAILED APPROVAL_EXPIRED', 'with the reason');
call pg_temp.act_as('agent c1');
select is(pg_temp.try($$update deployments set phase = 'APPLY', claim_token = pg_temp.id('13') where id = pg_temp.id('d3')$$), 'TD002', 'it is not applied any more');

-- A revoked cluster.
insert into deployments (id, cluster_id, config_snapshot) values (pg_temp.id('d4'), pg_temp.id('c2'), '{"template": "x"}'), (pg_temp.id('d5'), pg_temp.id('c2'), '{"template": "x"}');
call pg_temp.act_as('agent c2');
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('15') where id = pg_temp.id('d5')$$);
call pg_temp.act_as('alice');
call pg_temp.run($$update clusters set revoked_at = now() where id = pg_temp.id('c2')$$);
select is((select concat_ws(' ', status, error_code) from deployments where id = pg_temp.id('d4')), 'FAILED CLUSTER_REVOKED', 'what waits for a revoked cluster ends at once');
select is((select status from deployments where id = pg_temp.id('d5')), 'PROCESSING', 'what runs is not touched');
update tendril.leases set last_heartbeat_at = now() - interval '61 seconds';
select is(reap_lost_agents() ->> 'reaped', '1', 'until its lease is over');
select is((select concat_ws(' ', status, error_code) from deployments where id = pg_temp.id('d5')), 'FAILED CLUSTER_REVOKED', 'and it ends too');
select is(left(pg_temp.error($$insert into deployments (cluster_id, config_snapshot) values (pg_temp.id('c2'), '{"template": "x"}')$$), 5), '42501', 'nothing is queued there any more');

select * from finish();
rollback;
