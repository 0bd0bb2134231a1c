-- Approval of plans: who approves what, and when.
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

insert into deployments (id, cluster_id, config_snapshot) values
  (pg_temp.id('d1'), pg_temp.id('c1'), '{"template": "hello", "approval": true}'),
  (pg_temp.id('d3'), pg_temp.id('c3'), '{"template": "hello", "approval": true}');
create function pg_temp.plan(digit text) returns text language sql immutable as $$ select repeat(digit, 64) $$;
create function pg_temp.approve(short text, plan text) returns text language sql as $$
  select pg_temp.try(format('update deployments set approved_plan = %L where id = %L', plan, pg_temp.id(short)))
$$;
create function pg_temp.report(changes text) returns text language sql as $$
  select pg_temp.try(format('update deployments set claim_token = %L, %s where id = %L', pg_temp.id('01'), changes, pg_temp.id('d1')))
$$;
create function pg_temp.standing() returns text language sql as $$
  select concat_ws(' ', status, phase, left(plan_sha256, 1), left(approved_plan, 1), case when approved_at = now() then 'now' end) from deployments where id = pg_temp.id('d1')
$$;

-- Before there is a plan.
call pg_temp.act_as('alice');
select is(pg_temp.approve('d1', pg_temp.plan('a')), 'TD005', 'nothing to approve while it is queued');
call pg_temp.act_as('agent c1');
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('01') where id = pg_temp.id('d1')$$);
select is(pg_temp.report($$phase = 'PLAN', plan_sha256 = pg_temp.plan('a')$$), 'rows: 1', 'an agent writes the digest of its plan');
call pg_temp.act_as('alice');
select is(pg_temp.approve('d1', pg_temp.plan('a')), 'TD005', 'nothing to approve before it is shown');

-- While it waits.
call pg_temp.act_as('agent c1');
select is(pg_temp.report($$plan_sha256 = 'x'$$), '23514', 'a digest is a digest');
select is(pg_temp.report($$phase = 'APPROVAL'$$), 'rows: 1', 'it waits');
select is((select tendril.lease_length(phase) from deployments where id = pg_temp.id('d1')), interval '10 minutes', 'with a long lease: nothing runs');
select is(pg_temp.approve('d1', pg_temp.plan('a')), '42501', 'an agent does not approve');
select is(pg_temp.try($$update deployments set approved_at = now() where id = pg_temp.id('d1')$$), '42501', 'nor set the time');
call pg_temp.act_as('bob');
select is(pg_temp.approve('d1', pg_temp.plan('a')), 'rows: 0', 'nobody approves for others');
call pg_temp.act_as('anon');
select is(pg_temp.approve('d1', pg_temp.plan('a')), '42501', 'anon approves nothing');
call pg_temp.act_as('alice');
select is(pg_temp.approve('d1', pg_temp.plan('b')), 'TD005', 'not another plan than the one that waits');
select is(pg_temp.try($$update deployments set plan_sha256 = pg_temp.plan('b') where id = pg_temp.id('d1')$$), '42501', 'a user does not change the digest');
select is(pg_temp.try($$update deployments set approved_at = '2001-01-01' where id = pg_temp.id('d1')$$), '42501', 'nor the time');
select is(pg_temp.standing(), 'PROCESSING APPROVAL a', 'nothing is approved yet');
select is(pg_temp.approve('d1', pg_temp.plan('a')), 'rows: 1', 'its user approves it');
select is(pg_temp.standing(), 'PROCESSING APPROVAL a a now', 'by the database''s clock');
select is(pg_temp.approve('d1', pg_temp.plan('a')), 'rows: 1', 'twice is harmless');
select is(pg_temp.approve('d1', null), 'TD005', 'it cannot be taken back');

-- Afterwards.
call pg_temp.act_as('agent c1');
call pg_temp.run($$update deployments set claim_token = pg_temp.id('01'), plan_sha256 = pg_temp.plan('c') where id = pg_temp.id('d1')$$);
select is(pg_temp.standing(), 'PROCESSING APPROVAL c', 'another plan is not approved');
call pg_temp.act_as('alice');
select is(pg_temp.approve('d1', pg_temp.plan('a')), 'TD005', 'the old plan cannot be approved any more');
select is(pg_temp.approve('d1', pg_temp.plan('c')), 'rows: 1', 'the new one can');
call pg_temp.act_as('agent c1');
select is(pg_temp.report($$phase = 'APPLY'$$), 'rows: 1', 'the agent goes on');
select is(pg_temp.standing(), 'PROCESSING APPLY c c now', 'and the row still shows what was approved');

-- How long it may still be approved.
create function pg_temp.approval(short text, claim text) returns text language sql as $$
  select pg_temp.list(format('select a ->> ''phase'', left(a ->> ''approved_plan'', 1), ceil((a ->> ''seconds_left'')::numeric) from agent_approval(%L, %L) as a', pg_temp.id(short), pg_temp.id(claim)))
$$;
select is(pg_temp.approval('d1', '01'), '(APPLY,c,)', 'an agent reads what was approved; a plan without a limit never expires');
call pg_temp.act_as('alice');
call pg_temp.run($$insert into deployments (id, cluster_id, config_snapshot) values (pg_temp.id('d2'), pg_temp.id('c1'), '{"template": "hello", "stack": "e", "approval": true, "approval_expires": 60}')$$);
call pg_temp.act_as('agent c1');
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('02') where id = pg_temp.id('d2')$$);
select is(pg_temp.approval('d2', '02'), '(CLAIMED,,)', 'its time does not run yet');
call pg_temp.run($$update deployments set claim_token = pg_temp.id('02'), phase = 'APPROVAL', plan_sha256 = pg_temp.plan('e') where id = pg_temp.id('d2')$$);
select is(pg_temp.approval('d2', '02'), '(APPROVAL,,60)', 'it runs from the moment at which it waits');
select is(pg_temp.approval('d2', '01'), 'TD001 the claim_token does not hold deployment ' || pg_temp.id('d2'), 'not with another claim');
call pg_temp.act_as('agent c2');
select is(left(pg_temp.approval('d2', '02'), 5), 'TD001', 'nor by another cluster');
call pg_temp.act_as('alice');
select is(left(pg_temp.approval('d2', '02'), 5), '42501', 'nor by a user');
call pg_temp.act_as('anon');
select is(left(pg_temp.approval('d2', '02'), 5), '42501', 'nor by anybody');
select throws_ok($$insert into deployments (cluster_id, config_snapshot) values (pg_temp.id('c1'), '{"template": "x", "approval": "yes"}')$$, '23514', null, 'approval is true or false');

select * from finish();
rollback;
