-- Agents as authenticated: run on a database where agent_as_authenticated.sql was applied.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(31);

-- The stage: alice owns clusters c1, c2 and the revoked c9; bob owns c3. Each cluster has an agent. `act_as` sets who
-- acts next; `run` runs a statement as that role with that JWT; `try` does and answers its SQLSTATE or "rows: n"; `list`
-- answers what a query shows. The assertions themselves run as the owner: a role under test needs no right on pgTAP.
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
  (pg_temp.id('d1'), pg_temp.id('c1'), '{"template": "hello"}'), (pg_temp.id('d0'), pg_temp.id('c1'), '{"template": "hello"}'), (pg_temp.id('d2'), pg_temp.id('c2'), '{"template": "hello"}');
create procedure pg_temp.act_as_agent(cluster text, agent boolean default true) language plpgsql as $$
begin
  perform set_config('tests.role', 'authenticated', true);
  perform set_config('tests.claims', jsonb_build_object('role','authenticated','sub',pg_temp.id('0e'),'cluster_id',pg_temp.id(cluster),'agent',agent)::text, true);
end
$$;
call pg_temp.act_as_agent('c1');
select is(pg_temp.list('select name from clusters'), '(c1)', 'an agent sees its own cluster');
select is(pg_temp.list('select id from deployments where id = pg_temp.id(''d2'')'), 'nothing', 'and no deployment of others');
select is(pg_temp.try($$insert into deployments (cluster_id, config_snapshot) values (pg_temp.id('c1'), '{"template": "x"}')$$), '42501', 'an agent does not queue');
select is(pg_temp.try($$update clusters set name = 'x'$$), 'rows: 0', 'an agent does not change clusters');
select is(pg_temp.try($$insert into clusters (name) values ('x')$$), '23503', 'an agent is no user, so it adds no cluster');
select is(pg_temp.try($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('01') where id = pg_temp.id('d1') and status = 'QUEUED'$$), 'rows: 1', 'an agent claims');
select is(pg_temp.try($$update deployments set cancel_requested_at = now() where id = pg_temp.id('d1')$$), '42501', 'an agent does not request a cancel');
select is(pg_temp.try($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk) values (pg_temp.id('d1'), 1, 1, 'stdout', 'x') on conflict (deployment_id, attempt, seq) do nothing$$), 'rows: 1', 'an agent appends logs');
select is(pg_temp.try($$select agent_heartbeat('1', array[pg_temp.id('01')])$$), 'rows: 1', 'an agent has a heartbeat');
call pg_temp.act_as_agent('c1', false);
select is(pg_temp.list('select id from deployments'), 'nothing', 'a cluster_id without agent=true is nothing');
call pg_temp.act_as_agent('c9');
select is(pg_temp.list('select id from deployments'), 'nothing', 'a revoked agent sees nothing');
call pg_temp.act_as('alice');
select is(pg_temp.try($$update deployments set status = 'SUCCESS', claim_token = pg_temp.id('01') where id = pg_temp.id('d1')$$), '42501', 'a user cannot end a job, even with its token');
select is(pg_temp.try($$update deployments set claim_token = pg_temp.id('01') where id = pg_temp.id('d1')$$), '42501', 'nor extend its lease');
select is(pg_temp.try($$update deployments set status = 'CANCELLED' where id = pg_temp.id('d0')$$), '42501', 'nor set a status');
select is(pg_temp.try($$update deployments set cancel_requested_at = now() where id in (pg_temp.id('d0'), pg_temp.id('d1'))$$), 'rows: 2', 'a user cancels');
select is(pg_temp.list($$select status from deployments where id in (pg_temp.id('d0'), pg_temp.id('d1')) order by 1$$), '(CANCELLED) (PROCESSING)', 'as ever');
select is(pg_temp.try($$select agent_heartbeat('1')$$), 'TD003', 'a user has no heartbeat');
select is(pg_temp.try($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk) values (pg_temp.id('d1'), 1, 2, 'stdout', 'x')$$), '42501', 'a user appends no logs');
call pg_temp.act_as_agent('c1');
select is(pg_temp.try($$update deployments set status = 'SUCCESS', claim_token = pg_temp.id('01') where id = pg_temp.id('d1')$$), 'rows: 1', 'an agent ends its job');

-- Functions and the other tables.
select is(pg_temp.try($$select agent_publish_templates('[]')$$), 'rows: 1', 'an agent publishes its templates');
select is(pg_temp.list('select count(*) from agents'), '(1)', 'it sees the agents of its cluster');
call pg_temp.act_as('alice');
select is(pg_temp.try($$select agent_publish_templates('[]')$$), 'TD003', 'a user publishes none');
select is(pg_temp.try($$update deployments set approved_plan = repeat('a', 64) where id = pg_temp.id('d1')$$), 'TD005', 'a user approves, if there is a plan');
call pg_temp.act_as_agent('c1');
select is(pg_temp.try($$update deployments set approved_plan = repeat('a', 64) where id = pg_temp.id('d1')$$), '42501', 'an agent does not');

-- Broadcasts.
create function pg_temp.receives(topic text) returns text language plpgsql as $$
declare
  probes uuid[];
begin
  with probe as (
    insert into realtime.messages (topic, extension) values (receives.topic, 'broadcast'), (receives.topic, 'presence') returning id
  ) select array_agg(id) into probes from probe;
  perform set_config('realtime.topic', receives.topic, true);
  return pg_temp.list(format('select extension from realtime.messages where id = any (%L::uuid[])', probes));
end
$$;
select is(pg_temp.try('select agent_wants_broadcasts()'), 'rows: 1', 'an agent requests broadcasts');
select is(pg_temp.receives('cluster:' || pg_temp.id('c1')), '(broadcast)', 'and receives those of its cluster');
select is(pg_temp.receives('cluster:' || pg_temp.id('c2')), 'nothing', 'and of no other');
select is(pg_temp.try($$insert into realtime.messages (topic, extension) values ('cluster:' || pg_temp.id('c1'), 'broadcast')$$), '42501', 'it does not send there');
call pg_temp.act_as_agent('c1', false);
select is(pg_temp.receives('cluster:' || pg_temp.id('c1')), 'nothing', 'a cluster_id without agent=true receives nothing');
call pg_temp.act_as('alice');
select is(pg_temp.receives('cluster:' || pg_temp.id('c1')), 'nothing', 'nor does a user');
select is(pg_temp.try('select agent_wants_broadcasts()'), 'TD003', 'a user cannot request them');

select * from finish();
rollback;
