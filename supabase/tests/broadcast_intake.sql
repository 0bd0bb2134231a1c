-- Broadcast intake: who requests broadcasts, what is broadcast, and who receives it.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(73);

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

-- What Realtime does before a join of a private channel: it writes a message of each kind for the topic, and reads as that role
-- which of them are visible.
create function pg_temp.receives(topic text) returns text language plpgsql as $$
declare
  probes uuid[];
  found text;
begin
  with probe as (
    insert into realtime.messages (topic, extension) values (receives.topic, 'broadcast'), (receives.topic, 'presence') returning id
  ) select array_agg(id) into probes from probe;
  perform set_config('realtime.topic', receives.topic, true);
  found := pg_temp.list(format('select extension from realtime.messages where id = any (%L::uuid[]) order by 1', probes));
  update realtime.messages set extension = 'probe' where id = any (probes);
  return found;
end
$$;
-- And before a client sends there.
create function pg_temp.sends(topic text, extension text) returns text language plpgsql as $$
begin
  perform set_config('realtime.topic', sends.topic, true);
  return pg_temp.try(format('insert into realtime.messages (topic, extension) values (%L, %L)', sends.topic, sends.extension));
end
$$;
-- What was broadcast since the last call. A message about no row has its own id.
create temporary table seen (id uuid primary key);
create function pg_temp.messages() returns text language sql as $$
  with fresh as (
    insert into seen select id from realtime.messages where extension = 'broadcast' on conflict do nothing returning id
  )
  select coalesce(string_agg(concat_ws(' ', m.event, right(m.topic, 2), case when m.private then 'private' end,
    case when m.payload ->> 'id' = m.id::text then (m.payload - 'id')::text else m.payload::text end), ' | ' order by m.topic), 'nothing')
  from fresh join realtime.messages m using (id)
$$;
create function pg_temp.queue(cluster text, job text) returns text language sql as $$
  select pg_temp.try(format($q$insert into deployments (id, cluster_id, config_snapshot) values (%L, %L, '{"template": "hello", "approval": true, "variables": {"secret": "s3cret"}}')$q$, pg_temp.id(job), pg_temp.id(cluster)))
$$;
create function pg_temp.change(job text, changes text) returns text language sql as $$
  select pg_temp.try(format('update deployments set %s where id = %L', changes, pg_temp.id(job)))
$$;

-- Without a request, no message is written.
call pg_temp.act_as('alice');
select is(pg_temp.queue('c1', 'd1'), 'rows: 1', 'a job is queued');
select is(pg_temp.messages(), 'nothing', 'and without a request nothing is broadcast');

-- Who may request them.
call pg_temp.act_as('agent c1');
select is(pg_temp.list('select agent_wants_broadcasts()'),
  '("{""event"": ""deployment"", ""topic"": ""cluster:00000000-0000-4000-8000-0000000000c1"", ""seconds"": 86400}")', 'an agent requests broadcasts, and gets the topic');
select is(pg_temp.try('select agent_wants_broadcasts()'), 'rows: 1', 'twice is harmless');
select is((select expires_at from tendril.broadcast_requests where cluster_id = pg_temp.id('c1')), now() + interval '1 day', 'the request ends after a day');
call pg_temp.act_as('agent c9');
select is(pg_temp.try('select agent_wants_broadcasts()'), 'TD004', 'a revoked agent may not');
call pg_temp.act_as('agent');
select is(pg_temp.try('select agent_wants_broadcasts()'), 'TD003', 'nor one without a cluster');
call pg_temp.act_as('service_role');
select is(pg_temp.try('select agent_wants_broadcasts()'), 'TD003', 'service_role has no cluster');
call pg_temp.act_as('alice');
select is(pg_temp.try('select agent_wants_broadcasts()'), '42501', 'a user may not');
call pg_temp.act_as('anon');
select is(pg_temp.try('select agent_wants_broadcasts()'), '42501', 'anon may not');
create function pg_temp.looks(who text) returns text language plpgsql as $$
begin
  call pg_temp.act_as(who);
  return pg_temp.try('select from tendril.broadcast_requests');
end
$$;
select is(pg_temp.looks(who), '42501', who || ' does not see the requests') from unnest(array['agent c1', 'alice', 'anon', 'service_role']) as who;
select is((select count(*)::int from tendril.broadcast_requests), 1, 'one cluster has a request');

-- What is broadcast.
call pg_temp.act_as('alice');
select is(pg_temp.queue('c1', 'd2'), 'rows: 1', 'a job is queued');
select is(pg_temp.messages(), 'deployment c1 private {"id": "00000000-0000-4000-8000-0000000000d2", "status": "QUEUED"}', 'its agent receives its id, and nothing of what it runs');
select is(pg_temp.queue('c2', 'd3'), 'rows: 1', 'a job of another cluster is queued');
select is(pg_temp.messages(), 'nothing', 'whose agent made no request');
select is(pg_temp.try(format($$insert into deployments (cluster_id, config_snapshot) select %L, '{"template": "hello"}' from generate_series(1, 50)$$, pg_temp.id('c1'))), 'rows: 50', 'fifty jobs are queued');
select is(pg_temp.messages(), 'deployment c1 private {"jobs": 50, "status": "QUEUED"}', 'by one message');
select is(pg_temp.change('d1', 'cancel_requested_at = now()'), 'rows: 1', 'a job that waits is cancelled');
select is(pg_temp.messages(), 'deployment c1 private {"id": "00000000-0000-4000-8000-0000000000d1", "status": "CANCELLED", "attempt": 0}', 'and waits no more');
call pg_temp.act_as('agent c1');
select is(pg_temp.change('d2', $$status = 'PROCESSING', claim_token = pg_temp.id('01')$$), 'rows: 1', 'a job is claimed');
select is(pg_temp.messages(), 'deployment c1 private {"id": "00000000-0000-4000-8000-0000000000d2", "status": "PROCESSING", "attempt": 1}', 'its other agents receive it');
select is(pg_temp.change('d2', $$claim_token = pg_temp.id('01'), phase = 'APPROVAL', plan_sha256 = repeat('a', 64)$$), 'rows: 1', 'it makes progress');
select is(pg_temp.try('select agent_heartbeat(''1'', array[pg_temp.id(''01'')])'), 'rows: 1', 'and keeps its heartbeat');
select is(pg_temp.messages(), 'nothing', 'which its agent knows');
call pg_temp.act_as('alice');
select is(pg_temp.change('d2', $$approved_plan = repeat('a', 64)$$), 'rows: 1', 'its plan is approved');
select is(pg_temp.messages(), 'deployment c1 private {"id": "00000000-0000-4000-8000-0000000000d2", "status": "PROCESSING", "attempt": 1}', 'and its agent notified');
select is(pg_temp.change('d2', 'cancel_requested_at = now()'), 'rows: 1', 'a cancel is requested');
select is(pg_temp.messages(), 'deployment c1 private {"id": "00000000-0000-4000-8000-0000000000d2", "status": "PROCESSING", "attempt": 1}', 'and its agent notified');
select is(pg_temp.change('d2', 'cancel_requested_at = now()'), 'rows: 1', 'twice');
select is(pg_temp.messages(), 'nothing', 'is broadcast once');
call pg_temp.act_as('agent c1');
select is(pg_temp.change('d2', $$claim_token = pg_temp.id('01'), status = 'CANCELLED'$$), 'rows: 1', 'it ends');
select is(pg_temp.messages(), 'deployment c1 private {"id": "00000000-0000-4000-8000-0000000000d2", "status": "CANCELLED", "attempt": 1}', 'which frees its stack');
call pg_temp.act_as('alice');
select is(pg_temp.queue('c1', 'd4'), 'rows: 1', 'a job is queued');
call pg_temp.act_as('agent c1');
select is(pg_temp.change('d4', $$status = 'PROCESSING', claim_token = pg_temp.id('02')$$), 'rows: 1', 'and claimed');
select isnt(pg_temp.messages(), 'nothing', 'both are notified');
update tendril.leases set last_heartbeat_at = now() - interval '61 seconds' where deployment_id = pg_temp.id('d4');
select is(pg_temp.try('select agent_heartbeat(''1'')'), 'rows: 1', 'its agent is lost');
select is(pg_temp.messages(), 'deployment c1 private {"id": "00000000-0000-4000-8000-0000000000d4", "status": "QUEUED", "attempt": 1}', 'it is queued again, and broadcast');
update tendril.broadcast_requests set expires_at = now();
call pg_temp.act_as('alice');
select is(pg_temp.queue('c1', 'd5'), 'rows: 1', 'a job is queued after the request ended');
select is(pg_temp.messages(), 'nothing', 'nothing is broadcast');

-- Who receives.
create function pg_temp.reception(who text, topic text) returns text language plpgsql as $$
begin
  call pg_temp.act_as(who);
  return pg_temp.receives(topic);
end
$$;
create function pg_temp.topic(cluster text) returns text language sql as $$ select 'cluster:' || pg_temp.id(cluster) $$;
select is(pg_temp.reception('agent c1', pg_temp.topic('c1')), '(broadcast)', 'an agent receives broadcasts of its cluster, and no presence');
select is(pg_temp.reception(who, pg_temp.topic('c1')), 'nothing', who || ' receives nothing of cluster c1') from unnest(array['agent c2', 'agent c3', 'agent', 'alice', 'bob', 'anon']) as who;
select is(pg_temp.reception('agent c9', pg_temp.topic('c9')), 'nothing', 'a revoked agent receives nothing');
select is(pg_temp.reception('agent c1', topic), 'nothing', 'an agent receives nothing of ' || topic)
from unnest(array['cluster:', 'cluster:%', 'cluster', 'room', upper(pg_temp.topic('c1')), pg_temp.topic('c1') || '0']) as topic;
select is(pg_temp.reception('service_role', pg_temp.topic('c1')), '(broadcast) (presence)', 'service_role receives everything');

-- Who may send.
create function pg_temp.sending(who text, extension text) returns text language plpgsql as $$
begin
  call pg_temp.act_as(who);
  return pg_temp.sends(pg_temp.topic('c1'), extension);
end
$$;
select is(pg_temp.sending(who, extension), '42501', format('%s may not send there (%s)', who, extension))
from unnest(array['agent c1', 'agent c2', 'alice', 'bob', 'anon']) as who, unnest(array['broadcast', 'presence']) as extension;
select is((select string_agg(roleid::regrole::text, ' ') from pg_auth_members where member = 'tendril_agent'::regrole), 'anon', 'an agent has the rights of anon, and of nobody else');
select is((select count(*)::int from pg_policies where schemaname = 'realtime' and tablename = 'messages' and 'tendril_agent' = any (roles) and cmd <> 'SELECT'), 0, 'its one policy there is to read');

-- A broadcast that fails is a warning.
update tendril.broadcast_requests set expires_at = now() + interval '1 day';
create function pg_temp.without_send() returns boolean language plpgsql as $$
begin
  alter function realtime.send(jsonb, text, text, boolean) rename to send_away;
  return true;
exception when insufficient_privilege then
  return false;
end
$$;
create temporary table stage as select pg_temp.without_send() as is_away;
set local client_min_messages = error;
call pg_temp.act_as('alice');
select case when is_away then is(pg_temp.queue('c1', 'd6'), 'rows: 1', 'a job is queued where nothing can be sent') else skip('realtime.send is not ours', 1) end from stage;
select is(pg_temp.change('d6', 'cancel_requested_at = now()'), case when is_away then 'rows: 1' else 'rows: 0' end, 'and cancelled') from stage;
call pg_temp.act_as('agent c1');
select case when is_away then is(pg_temp.try('select agent_wants_broadcasts()'), '0A000', 'a request gets an error where there are no broadcasts') else skip('realtime.send is not ours', 1) end from stage;

select * from finish();
rollback;
