-- Agents of a cluster: who is live, whose state backends contradict, and that idleness changes no published row.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(40);

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

create function pg_temp.heartbeat(agent text, backend text default null, fingerprint text default null, claims text default '{}') returns jsonb language plpgsql as $$
declare
  answer jsonb;
begin
  execute format('select set_config(''request.jwt.claims'', %L, true)', current_setting('tests.claims'));
  perform set_config('role', current_setting('tests.role'), true);
  answer := agent_heartbeat('1', claims::uuid[], agent, backend, fingerprint);
  perform set_config('role', 'none', true);
  return answer;
end
$$;
call pg_temp.act_as('agent c1');
select is(pg_temp.heartbeat('a', 'local') -> 'refused', 'null', 'the first agent with local states');
select alike(pg_temp.heartbeat('b', 'local') #>> '{refused,message}', 'agents b and a of one cluster both use the state backend local, each with a directory of its own%', 'the second is refused');
select is(pg_temp.heartbeat('b', 'local') #>> '{refused,code}', 'TD009', 'each time');
select is(pg_temp.heartbeat('a', 'local') -> 'refused', 'null', 'the first is not');
select alike(pg_temp.heartbeat('c', 'pg', 'f') #>> '{refused,message}', 'agent c uses the state backend pg, and agent a of the same cluster uses local%', 'nor may another backend join');
select is(pg_temp.heartbeat('d') -> 'refused', 'null', 'an agent of contract 2 does not report its backend');
select is(pg_temp.list('select name, status from agents order by 1'), '(a,ACTIVE) (b,REFUSED) (c,REFUSED) (d,ACTIVE)', 'each is listed');
select is(pg_temp.list('select status, agents, refused_agents, last_seen_at = now() from cluster_status'), '(ONLINE,2,2,t)', 'and counted');
insert into deployments (id, cluster_id, config_snapshot) values (pg_temp.id('d1'), pg_temp.id('c1'), '{"template": "hello"}');
select is(left(pg_temp.error($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('11'), claimed_by = 'b' where id = pg_temp.id('d1')$$), 5), 'TD009', 'a refused agent claims nothing');
update agents set last_seen_at = now() - interval '131 seconds' where name = 'a';
select is(pg_temp.heartbeat('b', 'local') -> 'refused', 'null', 'once the first is silent the second takes its place');
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('11'), claimed_by = 'a' where id = pg_temp.id('d1')$$);
update tendril.leases set last_heartbeat_at = now() - interval '50 seconds';
select is(pg_temp.heartbeat('a', 'local', null, array[pg_temp.id('11')]::text) #>> '{refused,code}', 'TD009', 'the first comes back, and is refused');
select is((select last_heartbeat_at from tendril.leases), now(), 'but keeps the job that it holds');
select is(pg_temp.try('select agent_offline(''b'')'), 'rows: 1', 'the second ends');
select is(pg_temp.heartbeat('a', 'local') -> 'refused', 'null', 'the first is welcome again');
call pg_temp.act_as('agent c3');
select is(pg_temp.heartbeat('a', 'local', 'd1') -> 'refused', 'null', 'local states');
select is(pg_temp.heartbeat('b', 'local', 'd1') -> 'refused', 'null', 'may be shared by a directory');
select is(pg_temp.heartbeat('c', 'local', 'd2') #>> '{refused,code}', 'TD009', 'and by that alone');
call pg_temp.act_as('agent c2');
select is(pg_temp.heartbeat('a', 'pg', 'f1') -> 'refused', 'null', 'a shared backend');
select is(pg_temp.heartbeat('b', 'pg', 'f1') -> 'refused', 'null', 'is for many');
select alike(pg_temp.heartbeat('c', 'pg', 'f2') #>> '{refused,message}', 'agents c and a of one cluster use the state backend pg with different settings%', 'with the same settings');
select is(pg_temp.heartbeat('a', 'pg', 'f2') #>> '{refused,code}', 'TD009', 'an agent does not move away from the others');
select is(pg_temp.list('select name from agents where name like ''%'' order by 1'), '(a) (b) (c)', 'an agent sees those of its cluster');

-- Quiet.
create temporary table writes as select 'none' as kind where false;
grant all on writes to public;
create function pg_temp.note_write() returns trigger language plpgsql as $$ begin insert into writes values (tg_table_name); return null; end $$;
do $$ declare t text; begin
  foreach t in array array['clusters', 'deployments', 'stacks', 'deployment_changes', 'cluster_templates', 'deployment_logs'] loop
    execute format('create trigger zz_note_write after insert or update or delete on %I for each row execute function pg_temp.note_write()', t);
  end loop;
end $$;
call pg_temp.act_as('agent c1');
select is(count(pg_temp.heartbeat('a', 'local', null, array[pg_temp.id('11')]::text)), 5::bigint, 'five heartbeats of an agent with a job') from generate_series(1, 5);
select is((select count(*) from writes), 0::bigint, 'change no row that is published');
select is(count(pg_temp.heartbeat('new', null)), 1::bigint, 'nor does a new agent of the same version');
select is((select count(*) from writes), 0::bigint, 'of a cluster that is ONLINE');
call pg_temp.act_as('service_role');
select is(pg_temp.try('select reap_lost_agents()'), 'rows: 1', 'nor does the reaper');
select is((select count(*) from writes), 0::bigint, 'where nothing is lost');

-- A reaper for all.
select is((select reaper_status() -> 'scheduled'), 'true', 'the reaper has run by a schedule');
update tendril.reaper set scheduled_at = now() - interval '6 minutes', ran_at = now() - interval '31 seconds';
select is((select reaper_status() -> 'scheduled'), 'false', 'it has not run for a while');
update agents set last_seen_at = now() - interval '10 minutes' where cluster_id = pg_temp.id('c2');
call pg_temp.act_as('agent c1');
select is(pg_temp.heartbeat('a', 'local') #> '{reaper,scheduled}', 'false', 'an agent learns that nothing reaps');
select is((select status from clusters where id = pg_temp.id('c2')), 'OFFLINE', 'and notices the death of others');
select is(pg_temp.try('select reaper_status()'), 'rows: 1', 'who may ask: an agent');
call pg_temp.act_as('anon');
select is(pg_temp.try('select reaper_status()'), '42501', 'not anon');
select is(pg_temp.try('select 1 from agents'), '42501', 'who sees no agents');
select is(pg_temp.try('select 1 from cluster_status'), '42501', 'and no status');
call pg_temp.act_as('bob');
select is(pg_temp.list('select distinct cluster_id = pg_temp.id(''c3'') from agents'), '(t)', 'nor does another user, but their own');
select is(pg_temp.list('select name from cluster_status'), '(c3)', 'but of his own');
call pg_temp.act_as('alice');
select is(pg_temp.try('update agents set status = ''ACTIVE'''), '42501', 'a user changes none');
select is(pg_temp.list('select name from agents where is_live(agents) order by 1'), '(a) (c) (d) (new)', 'a user sees which are live');

select * from finish();
rollback;
