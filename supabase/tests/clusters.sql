-- Who may see, add and change clusters.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(33);

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

-- The owner.
call pg_temp.act_as('alice');
select is(pg_temp.list('select name from clusters order by name'), '(c1) (c2) (c9)', 'a user sees own clusters only');
select is(pg_temp.try('select api_key_hash from clusters'), '42501', 'a user cannot read a key''s hash');
select is(pg_temp.try('select api_key_hash_next from clusters'), '42501', 'a user cannot read the next key''s hash');
select alike(pg_temp.try($$insert into clusters (id, name, api_key_hash) values (pg_temp.id('c4'), 'c4', repeat('a', 64))$$), 'rows: %', 'a user adds a cluster, with the hash of its key');
select is((select user_id from clusters where id = pg_temp.id('c4')), pg_temp.id('0a'), 'a new cluster belongs to who adds it');
select is((select status from clusters where id = pg_temp.id('c4')), 'PENDING', 'a new cluster is PENDING');
select is(pg_temp.try($$insert into clusters (user_id, name) values (pg_temp.id('0b'), 'for bob')$$), '42501', 'a user cannot add a cluster for another');
select is(pg_temp.try($$insert into clusters (name, status) values ('x', 'ONLINE')$$), '42501', 'a user cannot set a cluster ONLINE');
select is(pg_temp.try($$update clusters set status = 'ONLINE'$$), '42501', 'a user cannot change a status');
select is(pg_temp.try($$update clusters set user_id = pg_temp.id('0b')$$), '42501', 'a user cannot give a cluster away');
select is(pg_temp.try($$update agents set last_seen_at = now()$$), '42501', 'a user cannot forge a heartbeat');
select is(pg_temp.try($$update clusters set name = 'renamed', api_key_hash_next = repeat('b', 64) where id = pg_temp.id('c1')$$), 'rows: 1', 'a user renames a cluster and sets its next key');
select is(pg_temp.try($$update clusters set name = 'mine now' where id = pg_temp.id('c3')$$), 'rows: 0', 'a user cannot change the cluster of another');
select is(pg_temp.try('delete from clusters'), '42501', 'a user cannot delete clusters');
select is(pg_temp.try($$insert into clusters (name, api_key_hash) values ('x', 'secret')$$), '23514', 'a key''s hash is a SHA-256, not the key');
select is(pg_temp.try($$insert into clusters (name) values ('')$$), '23514', 'a cluster has a name');
select is(pg_temp.try($$insert into clusters (name, api_key_hash) values ('x', repeat('a', 64))$$), '23505', 'a key opens one cluster');

-- Revocation.
select is(pg_temp.try($$update clusters set revoked_at = '2001-01-01' where id = pg_temp.id('c2')$$), 'rows: 1', 'a user revokes a cluster');
select is((select revoked_at from clusters where id = pg_temp.id('c2')), now(), 'revocation takes the database''s time');
select is((select status from clusters where id = pg_temp.id('c2')), 'OFFLINE', 'a revoked cluster is OFFLINE');
call pg_temp.run($$update clusters set revoked_at = null where id = pg_temp.id('c9')$$);
select isnt((select revoked_at from clusters where id = pg_temp.id('c9')), null, 'revocation is final');

-- Another user.
call pg_temp.act_as('bob');
select is(pg_temp.list('select name from clusters'), '(c3)', 'another user sees nothing of them');

-- Agents.
call pg_temp.act_as('agent c1');
select is(pg_temp.list('select name from clusters'), '(renamed)', 'an agent sees its own cluster');
select is(pg_temp.try('select api_key_hash from clusters'), '42501', 'an agent cannot read a key''s hash');
select is(pg_temp.try('select user_id from clusters'), '42501', 'an agent cannot read who owns it');
select is(pg_temp.try($$update clusters set status = 'ONLINE'$$), '42501', 'an agent writes its status by heartbeat only');
select is(pg_temp.try($$insert into clusters (name) values ('x')$$), '42501', 'an agent cannot add clusters');
select is(pg_temp.try('delete from clusters'), '42501', 'an agent cannot delete clusters');
call pg_temp.act_as('agent c9');
select is(pg_temp.try('select id from clusters'), 'rows: 0', 'a revoked agent sees nothing');
call pg_temp.act_as('agent');
select is(pg_temp.try('select id from clusters'), 'rows: 0', 'an agent without a cluster_id claim sees nothing');

-- The rest.
call pg_temp.act_as('anon');
select is(pg_temp.try('select id from clusters'), '42501', 'anon reads nothing');
select is(pg_temp.try($$insert into clusters (name) values ('x')$$), '42501', 'anon adds nothing');
call pg_temp.act_as('service_role');
select is(pg_temp.list($$select name from clusters where api_key_hash = repeat('a', 64)$$), '(c4)', 'service_role finds a cluster by its key''s hash');

select * from finish();
rollback;
