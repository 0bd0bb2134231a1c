-- Templates from Git: what a snapshot may name, and who writes and reads which commit was run.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(22);

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
  (pg_temp.id('d1'), pg_temp.id('c1'), '{"source": {"git": "https://example.org/x.git", "ref": "main", "path": "network"}}'),
  (pg_temp.id('d3'), pg_temp.id('c3'), '{"source": {"git": "https://example.org/x.git"}}');
create function pg_temp.broken_rule(snapshot jsonb) returns text language plpgsql as $$
declare
  rule text;
begin
  insert into deployments (cluster_id, config_snapshot) values (pg_temp.id('c1'), snapshot);
  return 'none';
exception when check_violation then
  get stacked diagnostics rule = constraint_name;
  return rule;
end
$$;
create function pg_temp.report(short text, changes text) returns text language sql as $$
  select pg_temp.try(format('update deployments set claim_token = %L, %s where id = %L', pg_temp.id('01'), changes, pg_temp.id(short)))
$$;
create function pg_temp.commit() returns text language sql as $$
  select coalesce(left(template_commit, 2), 'none') from deployments where id = pg_temp.id('d1')
$$;

-- The outline.
select is(pg_temp.broken_rule('{"source": {"git": "https://example.org/x.git", "ref": "v1", "path": "a/b"}, "stack": "prod"}'), 'none', 'a source instead of a template');
select is(pg_temp.broken_rule('{"template": "hello"}'), 'none', 'a template instead of a source');
select is(pg_temp.broken_rule('{"template": "hello", "source": null}'), 'none', 'null is left out');
select is(pg_temp.broken_rule('{"template": "hello", "source": {"git": "https://example.org/x.git"}}'), 'config_snapshot_names_one_of_template_and_source', 'not both');
select is(pg_temp.broken_rule('{"template": "hello", "source": "https://example.org/x.git"}'), 'config_snapshot_names_one_of_template_and_source', 'not both, whatever the source is');
select is(pg_temp.broken_rule('{"source": {"ref": "main"}}'), 'config_snapshot_names_a_template_or_source', 'a source has an address');

-- Who writes it.
call pg_temp.act_as('alice');
select is(pg_temp.try($$insert into deployments (cluster_id, config_snapshot, template_commit) values (pg_temp.id('c1'), '{"template": "x"}', repeat('a', 40))$$), '42501', 'a user does not set which commit');
select is(pg_temp.try($$update deployments set template_commit = repeat('a', 40) where id = pg_temp.id('d1')$$), '42501', 'nor later');
call pg_temp.act_as('agent c1');
select is(pg_temp.try($$update deployments set template_commit = repeat('a', 40) where id = pg_temp.id('d1')$$), 'TD002', 'nor an agent before it claims');
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('01') where id = pg_temp.id('d1')$$);
select is(pg_temp.try($$update deployments set template_commit = repeat('a', 40) where id = pg_temp.id('d1')$$), 'TD001', 'nor without its claim');
select is(pg_temp.report('d1', $$template_commit = 'main'$$), '23514', 'a branch is no commit');
select is(pg_temp.report('d1', $$template_commit = repeat('A', 40)$$), '23514', 'small letters');
select is(pg_temp.report('d1', $$template_commit = repeat('a', 39)$$), '23514', 'in full');
select is(pg_temp.report('d1', $$template_commit = repeat('a', 40), phase = 'WORKSPACE'$$), 'rows: 1', 'the agent that holds it does');
select is(pg_temp.report('d1', $$template_commit = repeat('b', 64)$$), 'rows: 1', 'in SHA-256 too');
select is(pg_temp.report('d3', $$template_commit = repeat('a', 40)$$), 'rows: 0', 'not on the cluster of another');

-- Who reads it.
call pg_temp.act_as('alice');
select is(pg_temp.list($$select left(template_commit, 2) from deployments where id = pg_temp.id('d1')$$), '(bb)', 'its user reads it');
call pg_temp.act_as('bob');
select is(pg_temp.list($$select template_commit from deployments where id = pg_temp.id('d1')$$), 'nothing', 'nobody else');
call pg_temp.act_as('anon');
select is(pg_temp.try($$select template_commit from deployments$$), '42501', 'anon reads nothing');

-- Queued again, it may be another one.
update tendril.leases set last_heartbeat_at = now() - interval '61 seconds' where deployment_id = pg_temp.id('d1');
select is(pg_temp.commit(), 'bb', 'the lost agent''s value stands');
select is((select reap_lost_agents() ->> 'reaped'), '1', 'until the job is queued again');
select is(pg_temp.commit(), 'none', 'as if nothing was fetched');

select * from finish();
rollback;
