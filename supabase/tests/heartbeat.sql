-- agent_heartbeat and agent_offline: who may call them, and what they do.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(46);

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
select pg_temp.id('d' || n), pg_temp.id('c' || case n when 7 then 2 else 1 end), '{"template": "hello"}' from generate_series(1, 7) as n;
create function pg_temp.error(statement text) returns text language plpgsql as $$
begin
  call pg_temp.run(statement);
  return 'none';
exception when others then
  return sqlstate || ' ' || sqlerrm;
end
$$;

-- Who may call.
call pg_temp.act_as('alice');
select is(pg_temp.try($$select agent_heartbeat('1')$$), '42501', 'a user has no heartbeat');
select is(pg_temp.try('select agent_offline()'), '42501', 'a user cannot set a cluster OFFLINE');
call pg_temp.act_as('anon');
select is(pg_temp.try($$select agent_heartbeat('1')$$), '42501', 'anon has no heartbeat');
select is(pg_temp.try('select agent_offline()'), '42501', 'anon cannot set a cluster OFFLINE');
call pg_temp.act_as('service_role');
select is(pg_temp.try($$select agent_heartbeat('1')$$), 'TD003', 'service_role has no cluster');
call pg_temp.act_as('agent');
select alike(pg_temp.error($$select agent_heartbeat('1')$$), 'TD003 the token has no cluster_id claim%', 'an agent without a cluster_id claim gets an error');
select is(pg_temp.try('select agent_offline()'), 'TD003', 'at its good-bye too');
set local tests.claims = '{"role": "tendril_agent", "cluster_id": "not-a-uuid"}';
select is(pg_temp.try($$select agent_heartbeat('1')$$), 'TD003', 'a cluster_id that is no UUID is refused');
set local tests.claims = '{"role": "tendril_agent", "cluster_id": {"a": 1}}';
select is(pg_temp.try($$select agent_heartbeat('1')$$), 'TD003', 'a cluster_id that is no text is refused');
call pg_temp.act_as('agent c8');
select is(pg_temp.error($$select agent_heartbeat('1')$$), 'TD003 there is no cluster ' || pg_temp.id('c8'), 'an unknown cluster is named');
call pg_temp.act_as('agent c9');
select alike(pg_temp.error($$select agent_heartbeat('1')$$), 'TD004 cluster % was revoked at %', 'a revoked agent gets an error');
select is(pg_temp.try('select agent_offline()'), 'TD004', 'at its good-bye too');

-- The cluster.
call pg_temp.act_as('agent c1');
select is(pg_temp.try($$select agent_heartbeat('0.1.0')$$), 'rows: 1', 'an agent has a heartbeat');
select is((select row(status, agent_version, last_seen_at)::text from clusters join cluster_status using (id, status) where id = pg_temp.id('c1')), row('ONLINE', '0.1.0', now())::text, 'its cluster is ONLINE');
select is((select status from clusters where id = pg_temp.id('c2')), 'PENDING', 'others are not');
select is(pg_temp.try('select agent_offline()'), 'rows: 1', 'an agent reports that it stops');
select is((select status from clusters where id = pg_temp.id('c1')), 'OFFLINE', 'its cluster is OFFLINE');
select is(pg_temp.try($$select agent_heartbeat(repeat('x', 1000), null)$$), 'rows: 1', 'a long version and null claims are no error');
select is((select status || length(agent_version) from clusters where id = pg_temp.id('c1')), 'ONLINE100', 'back ONLINE, the version cut');

-- Several agents.
call pg_temp.run('select agent_offline()');
select is(pg_temp.try($$select agent_heartbeat('1', '{}', 'a')$$), 'rows: 1', 'an agent reports its name');
select is(pg_temp.try($$select agent_heartbeat('1', '{}', 'b')$$), 'rows: 1', 'so does another');
select is(pg_temp.try($$select agent_offline('a')$$), 'rows: 1', 'one of them reports that it stops');
select is((select status from clusters where id = pg_temp.id('c1')), 'ONLINE', 'the cluster has the other one still');
select is(pg_temp.try($$select agent_offline('b')$$), 'rows: 1', 'the other one follows');
select is((select status from clusters where id = pg_temp.id('c1')), 'OFFLINE', 'now it is OFFLINE');
call pg_temp.run($$select agent_heartbeat('1', '{}', 'a')$$);
call pg_temp.run($$select agent_heartbeat('1', '{}', repeat('b', 1000))$$);
select is((select max(length(name)) from agents), 200, 'a long name is cut');
update agents set last_seen_at = now() - interval '131 seconds' where name <> 'a';
select is(pg_temp.try($$select agent_offline('a')$$), 'rows: 1', 'an agent that fell silent');
select is((select status from clusters where id = pg_temp.id('c1')), 'OFFLINE', 'leaves no cluster ONLINE');
update agents set last_seen_at = now() - interval '2 days';
call pg_temp.run($$select agent_heartbeat('0.1.0', '{}', 'c')$$);
select is((select string_agg(name, ' ') from agents), 'c', 'and is forgotten');

-- The claims: d1 and d2 run, d3 has a cancel request, d4 is finished, d5 is queued, d7 belongs to another cluster.
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('1' || right(id::text, 1)) where id between pg_temp.id('d1') and pg_temp.id('d4')$$);
call pg_temp.run($$update deployments set phase = 'APPLY', claim_token = pg_temp.id('12') where id = pg_temp.id('d2')$$);
call pg_temp.run($$update deployments set status = 'SUCCESS', claim_token = pg_temp.id('14') where id = pg_temp.id('d4')$$);
call pg_temp.act_as('agent c2');
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('17') where id = pg_temp.id('d7')$$);
call pg_temp.act_as('alice');
call pg_temp.run($$update deployments set cancel_requested_at = now() where id = pg_temp.id('d3')$$);
update tendril.leases set last_heartbeat_at = now() - interval '11 minutes';

call pg_temp.act_as('agent c1');
create temp table answer (body jsonb);
grant all on answer to tendril_agent;
call pg_temp.run($$insert into answer select agent_heartbeat('0.1.0', array[pg_temp.id('11'), pg_temp.id('12'), pg_temp.id('13'), pg_temp.id('14'), pg_temp.id('17'), pg_temp.id('99')])$$);
select is((select body ->> 'now' from answer), to_jsonb(now()) #>> '{}', 'the answer has the time');
select is((select body -> 'cluster' from answer), jsonb_build_object('id', pg_temp.id('c1'), 'status', 'ONLINE'), 'the cluster');
select is((select body -> 'reaped' from answer), '0', 'and that nothing was reaped: a late heartbeat saves its claims');
select is((select jsonb_array_length(body -> 'claims') from answer), 6, 'one answer for each claim');
select is((select body #> '{claims,0}' from answer), jsonb_build_object('claim_token', pg_temp.id('11'), 'deployment_id', pg_temp.id('d1'), 'mine', true,
  'cancel_requested', false, 'lease_expires_at', now() + interval '60 seconds', 'status', 'PROCESSING', 'phase', 'CLAIMED', 'approved_plan', null, 'approval_expires_at', null), 'a running job: the lease is a minute again');
select is((select body #> '{claims,1,lease_expires_at}' from answer), to_jsonb(now() + interval '10 minutes'), 'during apply it is ten minutes again');
select is((select body #> '{claims,2,cancel_requested}' from answer), 'true', 'a cancel is passed on');
select is((select body #> '{claims,2,mine}' from answer), 'true', 'and the job is still held');
select is((select body #> '{claims,3}' from answer), jsonb_build_object('claim_token', pg_temp.id('14'), 'deployment_id', pg_temp.id('d4'), 'mine', false,
  'cancel_requested', false, 'lease_expires_at', null, 'status', 'SUCCESS', 'phase', 'CLAIMED', 'approved_plan', null, 'approval_expires_at', null), 'a finished job is not held any more');
select is((select body #> '{claims,4}' from answer), jsonb_build_object('claim_token', pg_temp.id('17'), 'deployment_id', null, 'mine', false,
  'cancel_requested', false, 'lease_expires_at', null, 'status', null, 'phase', null, 'approved_plan', null, 'approval_expires_at', null), 'a claim of another cluster is not known');
select is((select body #> '{claims,5,mine}' from answer), 'false', 'nor is a token that nobody used');
select is((select last_heartbeat_at from tendril.leases where deployment_id = pg_temp.id('d1')), now(), 'the lease is extended in the table');
select is((select last_heartbeat_at from tendril.leases where deployment_id = pg_temp.id('d7')), now() - interval '11 minutes', 'that of another cluster is not');
select is((select last_heartbeat_at from tendril.leases where deployment_id = pg_temp.id('d4')), null, 'a finished job has no lease');

-- A heartbeat reaps its own cluster, and no other.
update tendril.leases set last_heartbeat_at = now() - interval '11 minutes';
truncate answer;
call pg_temp.run($$insert into answer select agent_heartbeat('0.1.0', array[pg_temp.id('12'), pg_temp.id('13')])$$);
select is((select body -> 'reaped' from answer), '1', 'the job that no heartbeat names is reaped');
select is((select status from deployments where id = pg_temp.id('d1')), 'QUEUED', 'it is queued again');
select is((select status from deployments where id = pg_temp.id('d7')), 'PROCESSING', 'a job of another cluster is left alone');

select * from finish();
rollback;
