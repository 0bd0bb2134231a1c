-- Who approved and cancelled, and why.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(22);

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

insert into deployments (id, cluster_id, config_snapshot) select pg_temp.id('d' || n), pg_temp.id('c1'), '{"template": "hello", "approval": true}' from generate_series(1, 4) as n;
call pg_temp.act_as('agent c1');
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('1' || right(id::text, 1)) where id in (pg_temp.id('d1'), pg_temp.id('d2'))$$);
call pg_temp.run($$update deployments set phase = 'APPROVAL', plan_sha256 = repeat('a', 64), claim_token = pg_temp.id('1' || right(id::text, 1)) where id in (pg_temp.id('d1'), pg_temp.id('d2'))$$);
call pg_temp.act_as('alice');
create function pg_temp.does(job text, assignment text) returns text language sql as $$ select pg_temp.error(format('update deployments set %s where id = %L', assignment, pg_temp.id(job))) $$;
select alike(pg_temp.does('d1', $$approval_comment = 'fine'$$), 'TD005 an approval_comment % goes with its approval', 'a comment alone approves nothing');
select alike(pg_temp.does('d1', $$cancel_comment = 'no'$$), 'TD002 a cancel_comment % goes with its cancel', 'nor does it cancel');
select is(left(pg_temp.does('d1', $$approved_plan = repeat('a', 64), approval_comment = repeat('x', 2001)$$), 5), '23514', 'a comment has an end');
select is(pg_temp.does('d1', $$approved_plan = repeat('a', 64), approval_comment = ' looks good '$$), 'none', 'an approval with a comment');
select is((select row(approved_by, approval_comment, approved_at)::text from deployments where id = pg_temp.id('d1')), row(pg_temp.id('0a'), 'looks good', now())::text, 'shows who and why');
select alike(pg_temp.does('d1', $$approval_comment = 'or not'$$), 'TD005%', 'which does not change');
select is(pg_temp.does('d2', $$cancel_requested_at = now(), cancel_comment = 'too many deletes'$$), 'none', 'a plan is rejected: a cancel with a comment');
select is((select row(cancelled_by, cancel_comment, cancel_requested_at, status)::text from deployments where id = pg_temp.id('d2')), row(pg_temp.id('0a'), 'too many deletes', now(), 'PROCESSING')::text, 'by whom and why');
select alike(pg_temp.does('d2', $$approved_plan = repeat('a', 64)$$), 'TD005 % is being cancelled%', 'then nobody approves it');
select is(pg_temp.does('d2', $$cancel_requested_at = now() + interval '1 hour', cancel_comment = 'another'$$), 'none', 'a second cancel is harmless');
select is((select cancel_comment from deployments where id = pg_temp.id('d2')), 'too many deletes', 'and changes nothing');
select alike(pg_temp.does('d2', $$cancel_comment = 'another'$$), 'TD002%', 'nor does a comment on it');
select is(pg_temp.does('d3', $$cancel_requested_at = now(), cancel_comment = 'not needed'$$), 'none', 'a queued job');
select is((select row(status, cancelled_by, cancel_comment)::text from deployments where id = pg_temp.id('d3')), row('CANCELLED', pg_temp.id('0a'), 'not needed')::text, 'is cancelled at once');
select is(left(pg_temp.does('d4', $$cancelled_by = pg_temp.id('0b')$$), 5), '42501', 'nobody signs for another');
select is(left(pg_temp.does('d1', $$approved_by = pg_temp.id('0b')$$), 5), '42501', 'here neither');
call pg_temp.act_as('agent c1');
select is(left(pg_temp.does('d1', $$approval_comment = 'x'$$), 5), '42501', 'an agent comments on nothing');
select is(left(pg_temp.does('d4', $$cancel_comment = 'x'$$), 5), '42501', 'nothing at all');
call pg_temp.act_as('service_role');
select is(pg_temp.does('d4', $$cancel_requested_at = now()$$), 'none', 'the service cancels');
select is((select row(status, cancelled_by)::text from deployments where id = pg_temp.id('d4')), '(CANCELLED,)', 'in nobody''s name');
update tendril.leases set last_heartbeat_at = now() - interval '601 seconds' where deployment_id = pg_temp.id('d1');
select is(reap_lost_agents() ->> 'reaped', '1', 'the agent of an approved plan is lost');
select is((select row(status, approved_by, approval_comment, approved_plan)::text from deployments where id = pg_temp.id('d1')), '(QUEUED,,,)', 'the next plan needs its own approval');

select * from finish();
rollback;
