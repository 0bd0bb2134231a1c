-- The version of the contract: who may read it, and that the heartbeat returns the same.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(5);

select cmp_ok(contract_version(), '>=', 3, 'the database reports the version of its contract');
select is((select string_agg(r.rolname, ' ' order by r.rolname) from pg_roles r
  where r.rolname in ('anon', 'authenticated', 'service_role', 'tendril_agent') and has_function_privilege(r.oid, 'public.contract_version()', 'EXECUTE')),
  'authenticated service_role tendril_agent', 'who may ask for it');
select is((select prosecdef from pg_proc where oid = 'public.contract_version()'::regprocedure), false, 'it needs nobody''s rights');

grant tendril_agent to current_user;
insert into auth.users (id, email) values ('00000000-0000-4000-8000-00000000000a', 'alice@tests.invalid');
insert into clusters (id, user_id, name) values ('00000000-0000-4000-8000-0000000000c1', '00000000-0000-4000-8000-00000000000a', 'c1');
create temporary table answer (body jsonb);
grant insert on answer to tendril_agent;
set local request.jwt.claims = '{"role": "tendril_agent", "cluster_id": "00000000-0000-4000-8000-0000000000c1"}';
set local role tendril_agent;
insert into answer select public.agent_heartbeat('1');
reset role;
select is((select body -> 'contract' from answer), to_jsonb(contract_version()), 'an agent gets it at each heartbeat');
select is((select array_agg(key order by key) from answer, jsonb_object_keys(body) as key), array['broadcast', 'claims', 'cluster', 'contract', 'now', 'queued', 'reaped', 'reaper', 'refused'], 'beside all that it got before');

select * from finish();
rollback;
