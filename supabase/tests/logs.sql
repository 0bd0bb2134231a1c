-- Who may append and read logs.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(27);

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
  (pg_temp.id('d9'), pg_temp.id('c9'), '{"template": "hello"}');

call pg_temp.act_as('agent c1');
select is(pg_temp.try($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk) values (pg_temp.id('d1'), 1, 1, 'stdout', 'x')$$), '42501', 'nothing is logged before a claim');
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('01') where id = pg_temp.id('d1')$$);
select alike(pg_temp.try($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk, ts) values (pg_temp.id('d1'), 1, 1, 'stdout', e'a\nb\n', now()), (pg_temp.id('d1'), 1, 2, 'stderr', e'c\n', now()), (pg_temp.id('d1'), 1, 3, 'agent', e'd\n', now())$$), 'rows: %', 'an agent appends a batch');
select is(pg_temp.try($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk) values (pg_temp.id('d1'), 1, 1, 'stdout', 'again')$$), '23505', 'a chunk is stored once');
select alike(pg_temp.try($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk) values (pg_temp.id('d1'), 1, 1, 'stdout', 'again'), (pg_temp.id('d1'), 1, 4, 'stdout', e'e\n') on conflict (deployment_id, attempt, seq) do nothing$$), 'rows: %', 'a repeated batch is harmless');
select is(pg_temp.list('select seq from deployment_logs order by seq'), '(1) (2) (3) (4)', 'an agent reads which chunks are stored');
select is(pg_temp.try('select log_chunk from deployment_logs'), '42501', 'an agent does not read logs back');
select is(pg_temp.try($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk) values (pg_temp.id('d1'), 2, 1, 'stdout', 'x')$$), '42501', 'not for an attempt that was not made');
select is(pg_temp.try($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk) values (pg_temp.id('d1'), 0, 1, 'stdout', 'x')$$), '42501', 'not for attempt 0');
select is(pg_temp.try($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk) values (pg_temp.id('d2'), 1, 1, 'stdout', 'x')$$), '42501', 'not for another cluster');
select is(pg_temp.try($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk) values (pg_temp.id('d1'), 1, 5, 'stdout', 'x'), (pg_temp.id('d2'), 1, 1, 'stdout', 'x') on conflict (deployment_id, attempt, seq) do nothing$$), '42501', 'not hidden in a batch');
select is(pg_temp.try($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk) values (pg_temp.id('d1'), 1, 0, 'stdout', 'x')$$), '23514', 'seq begins at 1');
select is(pg_temp.try($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk) values (pg_temp.id('d1'), 1, 5, 'debug', 'x')$$), '23514', 'a stream is known');
select alike(pg_temp.try($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk) values (pg_temp.id('d1'), 1, 5, 'stdout', repeat('x', 65536))$$), 'rows: %', 'a chunk of 64 KiB');
select is(pg_temp.try($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk) values (pg_temp.id('d1'), 1, 6, 'stdout', repeat('x', 65537))$$), '23514', 'and no more');
select is(pg_temp.try($$update deployment_logs set log_chunk = 'x'$$), '42501', 'an agent cannot rewrite a chunk');
select is(pg_temp.try('delete from deployment_logs'), '42501', 'an agent cannot delete a chunk');
call pg_temp.run($$update deployments set status = 'SUCCESS', claim_token = pg_temp.id('01') where id = pg_temp.id('d1')$$);
select alike(pg_temp.try($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk) values (pg_temp.id('d1'), 1, 6, 'stdout', 'late')$$), 'rows: %', 'a late chunk is welcome');

call pg_temp.act_as('agent c2');
select is(pg_temp.try('select seq from deployment_logs'), 'rows: 0', 'an agent of another cluster sees no chunk');
call pg_temp.act_as('agent c9');
select is(pg_temp.try($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk) values (pg_temp.id('d9'), 1, 1, 'stdout', 'x')$$), '42501', 'a revoked agent appends nothing');

call pg_temp.act_as('alice');
select is(pg_temp.list($$select string_agg(log_chunk, '' order by attempt, seq) from deployment_logs where seq < 5$$), e'("a\nb\nc\nd\ne\n")', 'the owner reads all, in order');
select is(pg_temp.try($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk) values (pg_temp.id('d1'), 1, 7, 'stdout', 'x')$$), '42501', 'a user appends nothing');
select is(pg_temp.try($$update deployment_logs set log_chunk = 'x'$$), '42501', 'a user changes nothing');
select is(pg_temp.try('delete from deployment_logs'), '42501', 'a user deletes nothing');
call pg_temp.act_as('bob');
select is(pg_temp.try('select id from deployment_logs'), 'rows: 0', 'another user sees nothing');
call pg_temp.act_as('anon');
select is(pg_temp.try('select id from deployment_logs'), '42501', 'anon reads nothing');
call pg_temp.act_as('service_role');
select is(pg_temp.try('delete from deployment_logs'), '42501', 'even service_role does not delete single chunks');
call pg_temp.run($$delete from deployments where id = pg_temp.id('d1')$$);
select is(pg_temp.try('select id from deployment_logs'), 'rows: 0', 'logs go with their deployment');

select * from finish();
rollback;
