-- What becomes of the jobs of agents that fell silent.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(44);

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
select pg_temp.id('d' || n), pg_temp.id('c1'), '{"template": "hello"}' from generate_series(1, 9) as n;
call pg_temp.act_as('agent c1');
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('1' || right(id::text, 1)), claimed_by = 'pod' where id between pg_temp.id('d1') and pg_temp.id('d8')$$);
call pg_temp.run($$update deployments set phase = 'PLAN', plan_summary = '{"add": 1}', log_count = 4, claim_token = pg_temp.id('11') where id = pg_temp.id('d1')$$);
call pg_temp.run($$update deployments set phase = 'APPLY', claim_token = pg_temp.id('12') where id = pg_temp.id('d2')$$);
call pg_temp.run($$update deployments set phase = 'DESTROY', claim_token = pg_temp.id('15') where id = pg_temp.id('d5')$$);
create procedure pg_temp.silence(short text, since interval) language sql as $$
  update tendril.leases set last_heartbeat_at = now() - since where deployment_id = pg_temp.id(short)
$$;
create function pg_temp.state(short text) returns text language sql as $$
  select concat_ws(' ', status, phase, attempt, error_code) from public.deployments where id = pg_temp.id(short)
$$;

-- Who may call.
select is(pg_temp.try('select reap_lost_agents()'), '42501', 'an agent does not reap');
select is(pg_temp.try('select tendril.reap(null)'), '42501', 'not by the private function either');
call pg_temp.act_as('alice');
select is(pg_temp.try('select reap_lost_agents()'), '42501', 'a user does not reap');
call pg_temp.act_as('anon');
select is(pg_temp.try('select reap_lost_agents()'), '42501', 'anon does not reap');
call pg_temp.act_as('service_role');
select is(pg_temp.list('select reap_lost_agents()'), '("{""reaped"": 0, ""offline"": 0}")', 'service_role reaps; nobody is silent yet');

-- Before apply began: queued again, once.
call pg_temp.silence('d1', '59 seconds');
select is(reap_lost_agents() ->> 'reaped', '0', '59 s of silence are no loss');
call pg_temp.silence('d1', '61 seconds');
select is(reap_lost_agents() ->> 'reaped', '1', '61 s are');
select is(pg_temp.state('d1'), 'QUEUED 1', 'before apply began the job is queued again');
select is((select row(claim_token, claimed_by, claimed_at, started_at, (select last_heartbeat_at from tendril.leases where deployment_id = d.id), plan_summary, log_count)::text from deployments d where id = pg_temp.id('d1')),
  '(,,,,,,0)', 'as if it was never claimed');
call pg_temp.act_as('agent c1');
select is(pg_temp.try($$update deployments set phase = 'APPLY', claim_token = pg_temp.id('11') where id = pg_temp.id('d1')$$), 'TD001', 'the lost agent cannot go on');
select is(pg_temp.try($$update deployments set status = 'SUCCESS', claim_token = pg_temp.id('11') where id = pg_temp.id('d1')$$), 'TD001', 'nor end it');
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('21') where id = pg_temp.id('d1')$$);
select is(pg_temp.state('d1'), 'PROCESSING CLAIMED 2', 'the second claim is attempt 2');
select is(pg_temp.try($$update deployments set phase = 'APPLY', claim_token = pg_temp.id('11') where id = pg_temp.id('d1')$$), 'TD001', 'the first claim''s token is stale');
select is(pg_temp.try($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk) values (pg_temp.id('d1'), 1, 1, 'stdout', 'late')$$), 'rows: 1', 'late lines of the first attempt are welcome');
call pg_temp.silence('d1', '61 seconds');
select is(reap_lost_agents() ->> 'reaped', '1', 'the second agent is lost too');
select is(pg_temp.state('d1'), 'FAILED CLAIMED 2 AGENT_LOST', 'the second loss is final');
select is(pg_temp.try($$update deployments set status = 'FAILED', error_code = 'TERRAFORM_FAILED', claim_token = pg_temp.id('21') where id = pg_temp.id('d1')$$), 'rows: 1', 'until its agent reports the true result');
select is(pg_temp.state('d1'), 'FAILED CLAIMED 2 TERRAFORM_FAILED', 'which replaces AGENT_LOST');

-- After apply began: never again by itself.
call pg_temp.silence('d2', '59 seconds');
select is(reap_lost_agents() ->> 'reaped', '0', '59 s of silence during apply are no loss');
call pg_temp.silence('d2', '61 seconds');
select is(reap_lost_agents() ->> 'reaped', '1', 'after 61 s during apply the phase is UNKNOWN');
select is(pg_temp.state('d2'), 'PROCESSING UNKNOWN 1', 'as phase UNKNOWN');
select is((select last_heartbeat_at from tendril.leases where deployment_id = pg_temp.id('d2')), now() - interval '61 seconds', 'the lease goes on');
select is(reap_lost_agents() ->> 'reaped', '0', 'which is shown once');
call pg_temp.run($$update deployments set phase = 'OUTPUT', claim_token = pg_temp.id('12') where id = pg_temp.id('d2')$$);
select is(pg_temp.state('d2'), 'PROCESSING OUTPUT 1', 'an agent that comes back goes on');
call pg_temp.silence('d2', '601 seconds');
select is(reap_lost_agents() ->> 'reaped', '1', 'the long lease ends');
select is(pg_temp.state('d2'), 'FAILED OUTPUT 1 AGENT_LOST', 'FAILED, not queued again');
call pg_temp.run($$update deployments set status = 'SUCCESS', claim_token = pg_temp.id('12') where id = pg_temp.id('d2')$$);
select is(pg_temp.state('d2'), 'SUCCESS OUTPUT 1', 'the late, true result replaces AGENT_LOST');

-- A cancel was requested; the cluster is revoked.
call pg_temp.act_as('alice');
call pg_temp.run($$update deployments set cancel_requested_at = now() where id in (pg_temp.id('d3'), pg_temp.id('d5'))$$);
call pg_temp.silence('d3', '61 seconds');
call pg_temp.silence('d5', '601 seconds');
select is(reap_lost_agents() ->> 'reaped', '2', 'two lost jobs that were to be cancelled');
select is(pg_temp.state('d3'), 'CANCELLED CLAIMED 1 CANCELLED', 'before apply began: cancelled, not queued again');
select is(pg_temp.state('d5'), 'FAILED DESTROY 1 AGENT_LOST', 'after: the outcome is unknown, so it is not called cancelled');

-- An agent that comes back removes the message about its silence.
call pg_temp.act_as('agent c1');
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('19') where id = pg_temp.id('d9')$$);
call pg_temp.run($$update deployments set phase = 'APPLY', claim_token = pg_temp.id('19') where id = pg_temp.id('d9')$$);
call pg_temp.silence('d9', '61 seconds');
call pg_temp.act_as('service_role');
select is(reap_lost_agents() ->> 'reaped', '1', 'an agent falls silent in apply');
call pg_temp.act_as('agent c1');
call pg_temp.run($$update deployments set phase = 'APPLY', claim_token = pg_temp.id('19') where id = pg_temp.id('d9')$$);
select is((select phase || coalesce(error_message, ' without a message') from deployments where id = pg_temp.id('d9')), 'APPLY without a message', 'it is back, and so is the phase');

-- service_role by hand: only what the reaper may do, only when it may.
call pg_temp.act_as('service_role');
call pg_temp.silence('d6', '61 seconds');
select is(pg_temp.try($$update deployments set status = 'SUCCESS' where id = pg_temp.id('d6')$$), 'TD002', 'a lost job is not SUCCESS');
select is(pg_temp.try($$update deployments set status = 'FAILED' where id = pg_temp.id('d7')$$), 'TD002', 'a job whose agent is alive is not ended without its token');
select is(pg_temp.try($$update deployments set phase = 'UNKNOWN' where id = pg_temp.id('d7')$$), 'TD002', 'nor is its phase set to UNKNOWN');
select is(pg_temp.try($$update deployments set status = 'QUEUED' where id = pg_temp.id('d7')$$), 'TD002', 'nor queued again');
call pg_temp.act_as('agent c1');
call pg_temp.run($$update deployments set phase = 'APPLY', claim_token = pg_temp.id('17') where id = pg_temp.id('d7')$$);
call pg_temp.act_as('service_role');
call pg_temp.silence('d7', '601 seconds');
select is(pg_temp.try($$update deployments set status = 'QUEUED' where id = pg_temp.id('d7')$$), 'TD002', 'a lost job is not queued again once apply began');
alter table deployments disable trigger b_enforce_state;
update deployments set attempt = 2 where id = pg_temp.id('d8');
alter table deployments enable trigger b_enforce_state;
call pg_temp.silence('d8', '61 seconds');
select is(pg_temp.try($$update deployments set status = 'QUEUED' where id = pg_temp.id('d8')$$), 'TD002', 'nor after its second attempt');
alter table deployments disable trigger b_enforce_state;
update deployments set phase = 'APPROVAL' where id = pg_temp.id('d8');
alter table deployments enable trigger b_enforce_state;
call pg_temp.silence('d8', '601 seconds');
select is(reap_lost_agents() ->> 'reaped', '3', 'the reaper ends them');
select is(pg_temp.state('d8'), 'QUEUED 2', 'a plan that waits for approval is made again, however often its agent goes');
call pg_temp.act_as('agent c1');
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('26') where id = pg_temp.id('d6')$$);
alter table deployments disable trigger b_enforce_state;
update deployments set attempt = 1 where id = pg_temp.id('d6');
alter table deployments enable trigger b_enforce_state;
call pg_temp.silence('d6', '61 seconds');

call pg_temp.act_as('alice');
call pg_temp.run($$update clusters set revoked_at = now() where id = pg_temp.id('c1')$$);
select is(reap_lost_agents() ->> 'reaped', '1', 'a lost job of a revoked cluster');
select is(pg_temp.state('d6'), 'FAILED CLAIMED 1 CLUSTER_REVOKED', 'is not queued for an agent that will not come');

-- Clusters.
call pg_temp.act_as('agent c2');
call pg_temp.run($$select agent_heartbeat('1', '{}', 'a')$$);
call pg_temp.act_as('agent c3');
call pg_temp.run($$select agent_heartbeat('1', '{}', 'a')$$);
update agents set last_seen_at = now() - interval '129 seconds' where cluster_id = pg_temp.id('c2');
update agents set last_seen_at = now() - interval '131 seconds' where cluster_id = pg_temp.id('c3');
select is(reap_lost_agents() ->> 'offline', '1', 'a cluster whose agents missed two heartbeats');
select is((select string_agg(name || ' ' || status, ', ' order by name) from clusters where name in ('c2', 'c3')), 'c2 ONLINE, c3 OFFLINE', 'is OFFLINE, and no other');

select * from finish();
rollback;
