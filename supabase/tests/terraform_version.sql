-- Which Terraform runs a deployment: what may be asked for, who says which one it was, and what the stack keeps of it.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(47);

-- The stage: alice owns clusters c1, c2 and the revoked c9; bob owns c3. Each cluster has an agent. `act_as` says who
-- speaks next; `run` runs a statement as that role with that JWT; `try` does and answers its SQLSTATE or "rows: n"; `list`
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
  (pg_temp.id('d1'), pg_temp.id('c1'), '{"template": "x", "stack": "prod", "terraform_version": "~> 1.11"}'),
  (pg_temp.id('d2'), pg_temp.id('c1'), '{"template": "x", "stack": "prod"}'),
  (pg_temp.id('d3'), pg_temp.id('c3'), '{"template": "x", "stack": "prod"}');
create function pg_temp.broken_rule(version jsonb) returns text language plpgsql as $$
declare
  rule text;
begin
  insert into deployments (cluster_id, config_snapshot) values (pg_temp.id('c1'), jsonb_build_object('template', 'x', 'terraform_version', version));
  return 'none';
exception when check_violation then
  get stacked diagnostics rule = constraint_name;
  return rule;
end
$$;
create function pg_temp.report(short text, changes text) returns text language sql as $$
  select pg_temp.try(format('update deployments set claim_token = %L, %s where id = %L', pg_temp.id('01'), changes, pg_temp.id(short)))
$$;
create function pg_temp.of_stack() returns text language sql as $$
  select coalesce(terraform_version, 'none') from stacks where cluster_id = pg_temp.id('c1') and state_key = 'x.prod'
$$;

-- What may be asked for.
select is(pg_temp.broken_rule(to_jsonb(wanted)), 'none', format('%s may be asked for', to_json(wanted)))
from unnest(array['1.11.4', '~> 1.11', '>= 1.9, < 2.0', '!=1.11.3', 'v1.11.4', '1.12.0-beta1', 'tofu 1.9.1', 'opentofu ~> 1.9', 'terraform >= 1.9 , < 2']) as wanted;
select is(pg_temp.broken_rule('null'), 'none', 'null is left out');
select is(pg_temp.broken_rule(wanted), 'config_snapshot_terraform_version_is_one', format('%s is refused', wanted))
from unnest(array['""', '"latest"', '"1.x"', '"1.2.3.4"', '"=> 1.9"', '">= 1.9,"', '"1.9 2.0"', '"../1.9.0"', '"packer 1.9.0"', '"1.9.0\n"', '1.11', 'true', '["1.11.4"]', '{"version": "1.11.4"}', to_json(repeat('1', 201))::text]::jsonb[]) as wanted;
select throws_ok($$insert into deployments (cluster_id, config_snapshot) values (pg_temp.id('c1'), '{"template": "x", "terraform_version": 1.11}')$$, '23514',
  'config_snapshot.terraform_version must be a version or constraints, and it is 1.11', 'the refusal says what is wrong');

-- Who writes which one it was.
call pg_temp.act_as('alice');
select is(pg_temp.try($$insert into deployments (cluster_id, config_snapshot, terraform_version) values (pg_temp.id('c1'), '{"template": "x"}', 'terraform 1.11.4')$$), '42501', 'a user does not say which program');
select is(pg_temp.try($$update deployments set terraform_version = 'terraform 1.11.4' where id = pg_temp.id('d1')$$), '42501', 'nor later');
call pg_temp.act_as('agent c1');
select is(pg_temp.try($$update deployments set terraform_version = 'terraform 1.11.4' where id = pg_temp.id('d1')$$), 'TD002', 'nor an agent before it claims');
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('01') where id = pg_temp.id('d1')$$);
select is(pg_temp.try($$update deployments set terraform_version = 'terraform 1.11.4' where id = pg_temp.id('d1')$$), 'TD001', 'nor without its claim');
select is(pg_temp.report('d1', $$terraform_version = '1.11.4'$$), '23514', 'a number is no program');
select is(pg_temp.report('d1', $$terraform_version = 'terraform latest'$$), '23514', 'a program has a version');
select is(pg_temp.report('d1', $$terraform_version = 'terraform 1.11.4' || repeat('x', 61)$$), '23514', 'of a bounded length');
select is(pg_temp.report('d1', $$terraform_version = 'terraform 1.12.0-beta1', phase = 'PLAN'$$), 'rows: 1', 'the agent that holds it does');
select is(pg_temp.report('d3', $$terraform_version = 'terraform 1.11.4'$$), 'rows: 0', 'not on the cluster of another');

-- What the stack keeps.
select is(pg_temp.of_stack(), 'none', 'a plan writes no state');
select is(pg_temp.report('d1', $$terraform_version = 'terraform 1.11.4', phase = 'APPLY'$$), 'rows: 1', 'the apply begins');
select is(pg_temp.of_stack(), 'terraform 1.11.4', 'from then on the state may be of that version');
select is(pg_temp.report('d1', $$status = 'FAILED', error_code = 'TERRAFORM_FAILED'$$), 'rows: 1', 'however it ends');
select is(pg_temp.of_stack(), 'terraform 1.11.4', 'the stack keeps it');
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('02') where id = pg_temp.id('d2')$$);
select is(pg_temp.of_stack(), 'terraform 1.11.4', 'the next deployment does not change it');
select is(pg_temp.list($$select terraform_version from stacks where state_key = 'x.prod'$$), '("terraform 1.11.4")', 'its agent reads it');
select is(pg_temp.try($$update deployments set claim_token = pg_temp.id('02'), phase = 'DESTROY' where id = pg_temp.id('d2')$$), 'rows: 1', 'an agent that does not say which program it is');
select is(pg_temp.of_stack(), 'terraform 1.11.4', 'makes nobody forget');
call pg_temp.act_as('alice');
select is(pg_temp.list($$select terraform_version from deployments where id = pg_temp.id('d1')$$), '("terraform 1.11.4")', 'its user reads which one ran');
select is(pg_temp.try($$update stacks set terraform_version = null$$), '42501', 'and changes nothing');
call pg_temp.act_as('bob');
select is(pg_temp.list($$select terraform_version from stacks where cluster_id = pg_temp.id('c1')$$), 'nothing', 'nobody else');

select * from finish();
rollback;
