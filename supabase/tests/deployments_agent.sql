-- What agents may do with deployments: read and work on those of their own cluster.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(32);

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
  (pg_temp.id('d1'), pg_temp.id('c1'), '{"template": "hello"}'), (pg_temp.id('d2'), pg_temp.id('c2'), '{"template": "hello"}'),
  (pg_temp.id('d3'), pg_temp.id('c3'), '{"template": "hello"}'), (pg_temp.id('d9'), pg_temp.id('c9'), '{"template": "hello"}');

call pg_temp.act_as('agent c1');
select is(pg_temp.list('select id from deployments'), '(' || pg_temp.id('d1') || ')', 'an agent sees deployments of its cluster, not of its owner''s others');
select alike(pg_temp.try('select id, cluster_id, config_snapshot, status, phase, attempt, claim_token, claimed_by, claimed_at, state_key, queue_order, queue_expires_at, approval_expires_at, applied,
  cancel_requested_at, created_at, started_at, finished_at, log_count, error_code, error_message, plan_summary, cost, cost_status, outputs
  from deployments'), 'rows: %', 'an agent reads every column it needs');
select is(pg_temp.try($$insert into deployments (cluster_id, config_snapshot) values (pg_temp.id('c1'), '{"template": "x"}')$$), '42501', 'an agent cannot queue work');
select is(pg_temp.try('delete from deployments'), '42501', 'an agent cannot delete');
select is(pg_temp.try($$update deployments set config_snapshot = '{"template": "x"}'$$), '42501', 'an agent cannot change what it is asked to run');
select is(pg_temp.try($$update deployments set cluster_id = pg_temp.id('c1')$$), '42501', 'an agent cannot take a deployment over');
select is(pg_temp.try('update deployments set attempt = 0'), '42501', 'an agent cannot count its attempts itself');
select is(pg_temp.try('update deployments set claimed_at = now()'), '42501', 'claimed_at is the database''s');
select is(pg_temp.try($$update tendril.leases set last_heartbeat_at = 'infinity'$$), '42501', 'an agent cannot give itself a longer lease');
select is(pg_temp.try('update deployments set started_at = now()'), '42501', 'started_at is the database''s');
select is(pg_temp.try('update deployments set finished_at = now()'), '42501', 'finished_at is the database''s');
select is(pg_temp.try('update deployments set cancel_requested_at = now()'), '42501', 'an agent cannot request a cancel');

-- Claim.
select is(pg_temp.try($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('01') where id = pg_temp.id('d2') and status = 'QUEUED'$$), 'rows: 0', 'a deployment of the owner''s other cluster cannot be claimed');
select is(pg_temp.try($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('01') where id = pg_temp.id('d3') and status = 'QUEUED'$$), 'rows: 0', 'a deployment of another user cannot be claimed');
select is(pg_temp.try($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('01'), claimed_by = 'pod-1' where id = pg_temp.id('d1') and status = 'QUEUED'$$), 'rows: 1', 'the first claim wins');
select is(pg_temp.try($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('02'), claimed_by = 'pod-2' where id = pg_temp.id('d1') and status = 'QUEUED'$$), 'rows: 0', 'the second claim gets no row');
select is((select row(status, phase, attempt, claimed_by, claimed_at, started_at, last_heartbeat_at)::text from deployments join tendril.leases on deployment_id = id where id = pg_temp.id('d1')),
  row('PROCESSING', 'CLAIMED', 1, 'pod-1', now(), now(), now())::text, 'a claim is stamped by the database');
select is(pg_temp.try($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('02') where id = pg_temp.id('d1')$$), 'TD001', 'a claim cannot be stolen by leaving the condition out');

-- Work.
select alike(pg_temp.try($$update deployments set claim_token = pg_temp.id('01'), phase = 'PLAN', plan_summary = '{"add": 1}', cost = '{"monthly": "1"}', cost_status = 'OK', outputs = '{}', log_count = 3, claimed_by = 'pod-1' where id = pg_temp.id('d1')$$), 'rows: %', 'the holder writes progress');
select is(pg_temp.try($$update deployments set claim_token = pg_temp.id('01'), outputs = '[]' where id = pg_temp.id('d1')$$), '23514', 'outputs are an object');
select is(pg_temp.try($$update deployments set claim_token = pg_temp.id('01'), phase = 'DANCING' where id = pg_temp.id('d1')$$), '23514', 'a phase is known');
select is(pg_temp.try($$update deployments set claim_token = pg_temp.id('01'), cost_status = 'GOOD' where id = pg_temp.id('d1')$$), '23514', 'a cost status is known');
select is(pg_temp.try($$update deployments set claim_token = pg_temp.id('01'), log_count = -1 where id = pg_temp.id('d1')$$), '23514', 'a count is not negative');

-- Other agents.
call pg_temp.act_as('agent c2');
select is(pg_temp.try($$update deployments set status = 'FAILED', claim_token = pg_temp.id('01') where id = pg_temp.id('d1')$$), 'rows: 0', 'another agent of the same owner cannot end it, even with the token');
select is(pg_temp.try($$select id from deployments where claim_token = pg_temp.id('01')$$), 'rows: 0', 'nor see it');
call pg_temp.act_as('agent c3');
select is(pg_temp.try($$update deployments set status = 'FAILED', claim_token = pg_temp.id('01') where id = pg_temp.id('d1')$$), 'rows: 0', 'an agent of another user cannot end it');
select is(pg_temp.try($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('01') where id = pg_temp.id('d3')$$), '23505', 'a claim token holds one deployment');
call pg_temp.act_as('agent c9');
select is(pg_temp.try('select id from deployments'), 'rows: 0', 'a revoked agent sees nothing');
select is(pg_temp.try($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('09') where id = pg_temp.id('d9')$$), 'rows: 0', 'a revoked agent claims nothing');
call pg_temp.act_as('agent');
select is(pg_temp.try('select id from deployments'), 'rows: 0', 'an agent without a cluster_id claim sees nothing');
set local tests.claims = '{"role": "tendril_agent", "cluster_id": "c1; drop table"}';
select is(pg_temp.try('select id from deployments'), 'rows: 0', 'a cluster_id that is no UUID is no cluster, and no error');

-- Revoked in mid-run.
call pg_temp.act_as('alice');
call pg_temp.run($$update clusters set revoked_at = now() where id = pg_temp.id('c1')$$);
call pg_temp.act_as('agent c1');
select is(pg_temp.try($$update deployments set claim_token = pg_temp.id('01'), phase = 'APPLY' where id = pg_temp.id('d1')$$), 'rows: 0', 'revocation works at once');

select * from finish();
rollback;
