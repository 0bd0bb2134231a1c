-- The catalogue of a cluster: agents publish it, its owner reads it.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(18);

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

create function pg_temp.publish(templates text) returns text language sql as $$ select pg_temp.list(format('select agent_publish_templates(%L)', templates)) $$;
create function pg_temp.template(name text, digit text) returns text language sql as $$
  select format('{"name": "%s", "digest": "%s", "title": "T", "variables": {"type": "object"}}', name, repeat(digit, 64))
$$;
call pg_temp.act_as('agent c1');
select is(pg_temp.publish('[' || pg_temp.template('a', '1') || ',' || pg_temp.template('b', '1') || ']'), '("{""changed"": 2, ""removed"": 0}")', 'an agent publishes two templates');
select is(pg_temp.publish('[' || pg_temp.template('a', '1') || ',' || pg_temp.template('b', '1') || ']'), '("{""changed"": 0, ""removed"": 0}")', 'again: no row changes');
select is(pg_temp.publish('[' || pg_temp.template('b', '2') || ',' || pg_temp.template('c', '1') || ']'), '("{""changed"": 2, ""removed"": 1}")', 'one is new, one changed, one gone');
select is(left(pg_temp.publish('[' || replace(pg_temp.template('o', '1'), '{"type": "object"}', '{"type":"object","properties":{"z":{},"a":{}}}') || ',' || pg_temp.template('b', '2') || ',' || pg_temp.template('c', '1') || ']'), 3), '("{', 'a schema whose keys are in no alphabet');
select is((select variables::text from cluster_templates where name = 'o'), '{"type":"object","properties":{"z":{},"a":{}}}', 'keeps their order');
select is(pg_temp.publish('[' || pg_temp.template('b', '2') || ',' || pg_temp.template('c', '1') || ']'), '("{""changed"": 0, ""removed"": 1}")', 'and is gone again');
select is(left(pg_temp.publish('{}'), 5), '22023', 'a list is a list');
select is(left(pg_temp.publish('[{"name": "../x", "digest": "x"}]'), 5), '23514', 'a name is a name');
select is((select count(*) from cluster_templates), 2::bigint, 'what is refused changes nothing');
call pg_temp.act_as('alice');
select is(pg_temp.list('select name from cluster_templates order by 1'), '(b) (c)', 'its owner reads them');
select is(pg_temp.try($$select agent_publish_templates('[]')$$), '42501', 'and publishes none');
select is(pg_temp.try('delete from cluster_templates'), '42501', 'nor deletes any');
call pg_temp.act_as('bob');
select is(pg_temp.list('select name from cluster_templates'), 'nothing', 'another user reads none');
call pg_temp.act_as('agent c2');
select is(pg_temp.list('select name from cluster_templates'), 'nothing', 'nor does an agent of another cluster');
select is(pg_temp.publish('[]'), '("{""changed"": 0, ""removed"": 0}")', 'which replaces its own catalogue alone');
select is((select count(*) from cluster_templates), 2::bigint, 'and not this one');
call pg_temp.act_as('agent c9');
select is(left(pg_temp.publish('[]'), 5), 'TD004', 'a revoked agent publishes nothing');
call pg_temp.act_as('anon');
select is(pg_temp.try('select 1 from cluster_templates'), '42501', 'anon reads nothing');

select * from finish();
rollback;
