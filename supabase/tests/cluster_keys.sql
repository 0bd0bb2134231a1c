-- Who makes, changes and takes away the API keys of clusters, and which of them the exchange takes.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(95);

-- The stage: alice owns clusters c1 and c2, and c9 which is revoked; bob owns c3. `call` answers
-- the value of an expression for the current role, or its SQLSTATE.
grant tendril_agent to current_user;
create function pg_temp.id(short text) returns uuid language sql immutable as $$
  select ('00000000-0000-4000-8000-0000000000' || short)::uuid
$$;
create procedure pg_temp.act_as(who text) language plpgsql as $$
declare
  role constant text := case when who in ('alice', 'bob') then 'authenticated' when who like 'agent%' then 'tendril_agent' else who end;
begin
  perform set_config('tests.role', role, true);
  perform set_config('tests.claims', jsonb_strip_nulls(jsonb_build_object(
    'role', role,
    'sub', case who when 'alice' then pg_temp.id('0a') when 'bob' then pg_temp.id('0b') else pg_temp.id('0e') end,
    'cluster_id', case when who like 'agent c_' then pg_temp.id(right(who, 2)) end
  ))::text, true);
end
$$;
create function pg_temp.call(expression text) returns text language plpgsql as $$
declare
  answer text;
begin
  perform set_config('request.jwt.claims', current_setting('tests.claims'), true), set_config('role', current_setting('tests.role'), true);
  execute 'select (' || expression || ')::text' into answer;
  perform set_config('role', 'none', true);
  return coalesce(answer, 'null');
exception when others then
  return sqlstate;
end
$$;
create function pg_temp.key_of(function text, short text) returns text language sql as $$
  select pg_temp.call(format('public.%I(%L)', function, pg_temp.id(short)))
$$;
-- The exchange as the Edge Function calls it: what a key of that cluster is answered.
create function pg_temp.exchange(short text, key text) returns text language plpgsql as $$
declare
  before constant text[] := array[current_setting('tests.role'), current_setting('tests.claims')];
  answer text;
begin
  call pg_temp.act_as('service_role');
  answer := pg_temp.call(format('public.exchange_cluster_key(%L, %L) ->> ''result''', pg_temp.id(short), encode(sha256(convert_to(key, 'UTF8')), 'hex')));
  perform set_config('tests.role', before[1], true), set_config('tests.claims', before[2], true);
  return answer;
end
$$;
create function pg_temp.status(short text, path text[]) returns text language sql as $$
  select pg_temp.call(format('public.cluster_key_status(%L) #>> %L', pg_temp.id(short), path))
$$;
insert into auth.users (id, email) values (pg_temp.id('0a'), 'alice@tests.invalid'), (pg_temp.id('0b'), 'bob@tests.invalid');
insert into clusters (id, user_id, name, revoked_at) values
  (pg_temp.id('c1'), pg_temp.id('0a'), 'c1', null), (pg_temp.id('c2'), pg_temp.id('0a'), 'c2', null),
  (pg_temp.id('c9'), pg_temp.id('0a'), 'c9', now()), (pg_temp.id('c3'), pg_temp.id('0b'), 'c3', null);
create temporary table keys (name text primary key, key text);

-- What a key is.
select is(tendril.base62('\x00', 2), '00', 'base62: zero');
select is(tendril.base62('\x3d', 1), 'z', 'base62: the last digit');
select is(tendril.base62('\x3e', 2), '10', 'base62: the first of two digits');
select is(tendril.base62(decode(repeat('ff', 16), 'hex'), 22), '7n42DGM5Tflk9n8mt7Fhc7', 'base62: the greatest id has 22 digits');
select is(length(tendril.base62(decode(repeat('ff', 32), 'hex'), 43)), 43, 'base62: 32 bytes have 43 digits');
select throws_ok($$select tendril.base62('\xffff', 2)$$, 'P0001', null, 'base62: nothing is cut off');
select matches(tendril.new_cluster_key(pg_temp.id('c1')), '^tdl_[0-9A-Za-z]{65}$', 'a key is tdl_ and 65 digits');
select is(substr(tendril.new_cluster_key(pg_temp.id('c1')), 5, 22), tendril.base62(uuid_send(pg_temp.id('c1')), 22), 'a key contains the id of its cluster');
select is((select count(distinct tendril.new_cluster_key(pg_temp.id('c1')))::int from generate_series(1, 200)), 200, 'each key is another');
select is(tendril.key_hash('abc'), 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad', 'a key''s hash is its SHA-256');

-- The compare.
select is(tendril.same_hash(repeat('a', 64), repeat('a', 64)), true, 'a hash is like itself');
select is(tendril.same_hash(repeat('a', 64), repeat('a', 63) || 'b'), false, 'the last digit counts');
select is(tendril.same_hash(repeat('a', 64), 'b' || repeat('a', 63)), false, 'the first digit counts');
select is(tendril.same_hash(null, repeat('0', 64)), false, 'an absent hash is like none, nor like what stands for it');

-- The first key.
call pg_temp.act_as('alice');
select is(pg_temp.key_of('rotate_cluster_key', 'c1'), 'TD007', 'what has no key cannot be rotated');
select is(pg_temp.status('c1', '{current}'), 'null', 'a cluster begins without a key');
insert into keys values ('first', pg_temp.key_of('create_cluster_key', 'c1'));
select matches((select key from keys where name = 'first'), '^tdl_[0-9A-Za-z]{65}$', 'an owner makes a key');
select is((select api_key_hash from clusters where id = pg_temp.id('c1')), (select tendril.key_hash(key) from keys where name = 'first'), 'its hash is stored');
select is((select count(*)::int from clusters c, keys k where strpos(c::text, substr(k.key, 27)) > 0), 0, 'the key is not');
select is((select count(*)::int from tendril.cluster_keys c, keys k where strpos(c::text, substr(k.key, 27)) > 0), 0, 'nor among what is known of keys');
select is((select api_key_hash_next from clusters where id = pg_temp.id('c1')), null, 'there is no next key');
select is(pg_temp.key_of('create_cluster_key', 'c1'), 'TD007', 'a second first key is refused');
select is(pg_temp.key_of('promote_cluster_key', 'c1'), 'TD007', 'without a next key nothing is promoted');
select is(pg_temp.key_of('create_cluster_key', 'c3'), 'TD008', 'nobody makes a key of another''s cluster');
select is(pg_temp.key_of('create_cluster_key', 'ff'), 'TD008', 'nor of none');
select is(pg_temp.key_of('create_cluster_key', 'c9'), 'TD004', 'nor of a revoked one');
select is(pg_temp.call('public.create_cluster_key(null)'), 'TD008', 'nor of null');
select isnt(pg_temp.status('c1', '{current,created_at}'), 'null', 'the owner sees when the key was made');
select is(pg_temp.status('c1', '{current,last_used_at}'), 'null', 'and that it was not used yet');
select is(pg_temp.status('c3', '{current}'), 'TD008', 'and nothing of another''s');

-- Another user.
call pg_temp.act_as('bob');
select is(pg_temp.key_of(f, 'c1'), 'TD008', 'another user is refused: ' || f)
from unnest(array['create_cluster_key', 'rotate_cluster_key', 'promote_cluster_key', 'revoke_cluster_key', 'cluster_key_status']) as f;
select is((select api_key_hash from clusters where id = pg_temp.id('c1')), (select tendril.key_hash(key) from keys where name = 'first'), 'and changes nothing');

-- Roles.
select is((select string_agg(format('%s(%s)', p.proname, r.rolname), ' ' order by p.proname, r.rolname)
  from pg_proc p, pg_roles r
  where p.proname ~ 'cluster_key' and p.pronamespace = 'public'::regnamespace
    and r.rolname in ('anon', 'authenticated', 'service_role', 'tendril_agent') and has_function_privilege(r.oid, p.oid, 'EXECUTE')),
  'cluster_key_status(authenticated) create_cluster_key(authenticated) exchange_cluster_key(service_role) promote_cluster_key(authenticated) revoke_cluster_key(authenticated) rotate_cluster_key(authenticated)',
  'who calls which function');
select is((select count(*)::int from pg_proc p, pg_roles r
  where p.proname in ('base62', 'new_cluster_key', 'key_hash', 'same_hash', 'own_cluster', 'set_cluster_keys', 'count_exchange') and p.pronamespace = 'tendril'::regnamespace
    and r.rolname in ('anon', 'authenticated', 'service_role', 'tendril_agent') and has_function_privilege(r.oid, p.oid, 'EXECUTE')), 0, 'none of the private rules');
select is((select count(*)::int from pg_proc where proname ~ 'cluster_key' and pronamespace = 'public'::regnamespace
  and not (prosecdef and coalesce(proconfig, '{}') @> array['search_path=""'])), 0, 'all run with their owner''s rights and a fixed search path');
select is(has_table_privilege(r, t, p), false, format('%s: %s has no %s', t, r, p))
from unnest(array['tendril.cluster_keys', 'tendril.key_exchanges']) as t, unnest(array['authenticated', 'tendril_agent', 'service_role']) as r, unnest(array['SELECT', 'UPDATE']) as p;
call pg_temp.act_as('agent c1');
select is(pg_temp.key_of('create_cluster_key', 'c2'), '42501', 'an agent makes no key');
select is(pg_temp.key_of('rotate_cluster_key', 'c1'), '42501', 'an agent does not rotate its own');
select is(pg_temp.call($$public.exchange_cluster_key(pg_temp.id('c1'), repeat('a', 64))$$), '42501', 'an agent cannot call the exchange');
call pg_temp.act_as('alice');
select is(pg_temp.call($$public.exchange_cluster_key(pg_temp.id('c1'), repeat('a', 64))$$), '42501', 'nor can a user');
call pg_temp.act_as('anon');
select is(pg_temp.call($$public.exchange_cluster_key(pg_temp.id('c1'), repeat('a', 64))$$), '42501', 'nor can anybody');
select is(pg_temp.key_of('create_cluster_key', 'c1'), '42501', 'anon makes no key');

-- The exchange.
call pg_temp.act_as('alice');
select is(pg_temp.exchange('c1', (select key from keys where name = 'first')), 'granted', 'the right key is granted');
select isnt(pg_temp.status('c1', '{current,last_used_at}'), 'null', 'which the owner sees');
select is(pg_temp.exchange('c1', 'tdl_wrong'), 'refused', 'a wrong key is refused');
select is(pg_temp.exchange('c2', (select key from keys where name = 'first')), 'refused', 'so is the key of another cluster');
select is(pg_temp.exchange('ff', (select key from keys where name = 'first')), 'refused', 'so is one of no cluster');
call pg_temp.act_as('service_role');
select is(pg_temp.call(format('public.exchange_cluster_key(%L, %L)', pg_temp.id('c2'), h)), '{"result": "refused"}', 'so is what is no hash: ' || coalesce(h, 'null'))
from unnest(array[repeat('0', 64), '', 'x', repeat('A', 64), null]) as h;
select is(pg_temp.call($$public.exchange_cluster_key(null, repeat('a', 64))$$), '{"result": "refused"}', 'so is null');

-- Rotation.
call pg_temp.act_as('alice');
insert into keys values ('replaced', pg_temp.key_of('rotate_cluster_key', 'c1'));
insert into keys values ('second', pg_temp.key_of('rotate_cluster_key', 'c1'));
select is(pg_temp.exchange('c1', (select key from keys where name = 'replaced')), 'refused', 'a next key is replaced by the next');
select is(pg_temp.key_of('promote_cluster_key', 'c1'), 'TD007', 'a next key that no agent used is not promoted');
select is(pg_temp.exchange('c1', (select key from keys where name = 'first')), 'granted', 'while there are two, the current key works');
select is(pg_temp.exchange('c1', (select key from keys where name = 'second')), 'granted', 'and the next one');
select isnt(pg_temp.status('c1', '{next,last_used_at}'), 'null', 'the owner sees that the next one is in use');
select is(pg_temp.call($$public.promote_cluster_key(pg_temp.id('c1'))$$), '', 'then it is promoted');
select is(pg_temp.exchange('c1', (select key from keys where name = 'second')), 'granted', 'it still works');
select is(pg_temp.exchange('c1', (select key from keys where name = 'first')), 'refused', 'the old one does not');
select is(pg_temp.status('c1', '{next}'), 'null', 'there is no next key again');
select is((select count(*)::int from tendril.cluster_keys where cluster_id = pg_temp.id('c1')), 1, 'what was known of old keys is forgotten');
select matches(pg_temp.key_of('rotate_cluster_key', 'c1'), '^tdl_', 'the next rotation begins');
select is(pg_temp.call($$public.promote_cluster_key(pg_temp.id('c1'), unused => true)$$), '', 'an unused key is promoted on explicit request');

-- A hash that the owner wrote.
update clusters set api_key_hash = tendril.key_hash('by hand') where id = pg_temp.id('c2');
select is(pg_temp.exchange('c2', 'by hand'), 'granted', 'a hash that was written directly works');
select isnt(pg_temp.status('c2', '{current,last_used_at}'), 'null', 'and its use is seen');

-- Revocation.
select is(pg_temp.key_of('revoke_cluster_key', 'c2'), '', 'an owner takes the keys away');
select is(pg_temp.exchange('c2', 'by hand'), 'refused', 'then none works');
select matches(pg_temp.key_of('create_cluster_key', 'c2'), '^tdl_', 'and a new first key can be made');
update clusters set api_key_hash = tendril.key_hash('of the revoked') where id = pg_temp.id('c9');
select is(pg_temp.exchange('c9', 'of the revoked'), 'revoked', 'the key of a revoked cluster is answered so');
select is(pg_temp.exchange('c9', 'guess'), 'refused', 'who has not is not');

-- The limit.
truncate tendril.key_exchanges;
call pg_temp.act_as('alice');
update clusters set api_key_hash = tendril.key_hash('busy') where id = pg_temp.id('c2');
select is((select string_agg(distinct pg_temp.exchange('c2', 'guess ' || n), ' ') from generate_series(1, 60) as n), 'refused', 'sixty wrong keys a minute are refused');
select is(pg_temp.exchange('c2', 'guess'), 'limited', 'the next has to wait');
select is((select string_agg(distinct pg_temp.exchange('c2', 'busy'), ' ') from generate_series(1, 60)), 'granted', 'the right key is not locked out by wrong ones');
select is(pg_temp.exchange('c2', 'busy'), 'limited', 'it has a limit of its own');
call pg_temp.act_as('service_role');
select is(pg_temp.call(format($$(public.exchange_cluster_key(pg_temp.id('c2'), %L) ->> 'retry_after')::int between 1 and 60$$, tendril.key_hash('busy'))), 'true', 'and gets the time to wait');
select is((select string_agg(distinct pg_temp.exchange('ff', 'guess ' || n), ' ') from generate_series(1, 60) as n), 'refused', 'sixty keys of no cluster are refused');
select is(pg_temp.exchange('ff', 'guess'), 'limited', 'and the next has to wait, too');
update tendril.key_exchanges set started_at = started_at - interval '61 seconds';
select is(pg_temp.exchange('c2', 'busy'), 'granted', 'after a minute the count starts again');

select * from finish();
rollback;
