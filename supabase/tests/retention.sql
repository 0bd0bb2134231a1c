-- Retention: what prune() deletes, for whom.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(11);

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

insert into deployments (id, cluster_id, config_snapshot) select pg_temp.id('d' || n), pg_temp.id('c1'), format('{"template": "hello", "stack": "s%s"}', n)::jsonb from generate_series(1, 4) as n;
insert into deployments (id, cluster_id, config_snapshot) values (pg_temp.id('d5'), pg_temp.id('c3'), '{"template": "hello"}');
call pg_temp.act_as('agent c1');
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('1' || right(id::text, 1)) where cluster_id = pg_temp.id('c1')$$);
call pg_temp.run($$insert into deployment_logs (deployment_id, attempt, seq, stream, log_chunk) select pg_temp.id('d1'), 1, n, 'stdout', 'x' from generate_series(1, 3) as n$$);
call pg_temp.run($$select agent_store_changes(pg_temp.id('d1'), pg_temp.id('11'), '[{"position": 1, "address": "a", "action": "create"}]')$$);
call pg_temp.run($$update deployments set status = 'FAILED', claim_token = pg_temp.id('1' || right(id::text, 1)) where id in (pg_temp.id('d1'), pg_temp.id('d2'))$$);
call pg_temp.run($$update deployments set status = 'SUCCESS', claim_token = pg_temp.id('13') where id = pg_temp.id('d3')$$);
alter table deployments disable trigger b_enforce_state;
update deployments set finished_at = now() - interval '8 days' where id in (pg_temp.id('d1'), pg_temp.id('d3'));
update deployments set finished_at = now() - interval '6 days' where id = pg_temp.id('d2');
alter table deployments enable trigger b_enforce_state;
call pg_temp.act_as('alice');
select is(pg_temp.error($$select prune(pg_temp.id('c1'))$$), 'TD010 cluster ' || pg_temp.id('c1') || ' has no retention: nothing is deleted', 'a cluster without retention deletes nothing');
select is(pg_temp.try($$update clusters set retention_days = 0 where id = pg_temp.id('c1')$$), '23514', 'a day is the least');
select is(pg_temp.try($$update clusters set retention_days = 7 where id = pg_temp.id('c1')$$), 'rows: 1', 'its owner decides');
select is(left(pg_temp.error('select prune()'), 5), 'TD008', 'a user prunes a cluster, not all');
call pg_temp.act_as('bob');
select is(left(pg_temp.error($$select prune(pg_temp.id('c1'))$$), 5), 'TD008', 'another user prunes nothing');
call pg_temp.act_as('agent c1');
select is(left(pg_temp.error($$select prune(pg_temp.id('c1'))$$), 5), '42501', 'nor does an agent');
call pg_temp.act_as('anon');
select is(left(pg_temp.error($$select prune()$$), 5), '42501', 'nor anon');
call pg_temp.act_as('alice');
select is(pg_temp.list($$select prune(pg_temp.id('c1'))$$), '("{""logs"": 3, ""more"": false, ""changes"": 1, ""deployments"": 1}")', 'what ended longer ago is deleted, with logs and changes');
select is((select string_agg(right(id::text, 2), ' ' order by id) from deployments where cluster_id = pg_temp.id('c1')), 'd2 d3 d4', 'but not what is younger, what runs, or the last success of a stack');
call pg_temp.act_as('service_role');
select is(pg_temp.list($$select prune()$$), '("{""logs"": 0, ""more"": false, ""changes"": 0, ""deployments"": 0}")', 'the service prunes all that have a retention');
select is(left(pg_temp.error($$select prune(pg_temp.id('ff'))$$), 5), 'TD008', 'a cluster that is not there is named');

select * from finish();
rollback;
