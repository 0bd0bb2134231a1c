-- Stacks: one key for each spelling, one run at a time, in order; held states.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(91);

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

-- The key.
create function pg_temp.key(config text) returns text language sql as $$ select tendril.state_key(config::jsonb, pg_temp.id('d1')) $$;
select is(pg_temp.key('{"template": "hello", "stack": "prod"}'), 'hello.prod', 'template and stack');
select is(pg_temp.key('{"template": "hello"}'), pg_temp.id('d1')::text, 'no stack: the deployment itself');
select is(pg_temp.key('{"template": "hello", "stack": "../up"}'), pg_temp.id('d1')::text, 'what is no stack name is no stack');
select is(pg_temp.key('{"template": "hello", "stack": 3}'), pg_temp.id('d1')::text, 'nor is a number');
select is(pg_temp.key('{"template": "git-x-0123456789abcdef", "stack": "s"}'), null, 'a template cannot take the key of a repository');
select is(pg_temp.key('{"source": {"git": "https://example.com/acme/Infra.git", "path": "net/VPC"}, "stack": "s"}'),
  'git-vpc-' || left(encode(sha256('example.com/acme/Infra#net/VPC'), 'hex'), 16) || '.s', 'a repository and a folder');
select is(pg_temp.key(format('{"source": {"git": %s, "path": "net"}, "stack": "s"}', to_json(address))),
  pg_temp.key('{"source": {"git": "https://github.com/acme/infra", "path": "net"}, "stack": "s"}'), 'one key: ' || address)
from unnest(array['https://github.com/acme/infra.git', 'https://GitHub.com/Acme/Infra.git/', 'https://github.com:443/ACME/infra', 'https://www.github.com/acme/infra',
  'https://github.com./acme//infra/', 'https://github.com/acme/./x/../infra.GIT', 'https://github.com/%61cme/infr%41', ' https://github.com/acme/infra ', 'HTTPS://github.com/acme/infra']) as address;
select is(pg_temp.key(format('{"source": {"git": "https://%s/A/B"}, "stack": "s"}', host)), pg_temp.key(format('{"source": {"git": "https://%s/a/b.git"}, "stack": "s"}', host)), host || ' ignores case')
from unnest(array['github.com', 'gitlab.com', 'bitbucket.org']) as host;
select isnt(pg_temp.key('{"source": {"git": "https://git.acme.io/A/B"}, "stack": "s"}'), pg_temp.key('{"source": {"git": "https://git.acme.io/a/b"}, "stack": "s"}'), 'another host may');
select isnt(pg_temp.key('{"source": {"git": "https://github.com/a/b", "path": "X"}, "stack": "s"}'), pg_temp.key('{"source": {"git": "https://github.com/a/b", "path": "x"}, "stack": "s"}'), 'folders always do');
select is(pg_temp.key('{"source": {"git": "https://github.com/a/b", "path": "./x//y/"}, "stack": "s"}'), pg_temp.key('{"source": {"git": "https://github.com/a/b", "path": "x/y"}, "stack": "s"}'), 'a folder has one spelling');
select is(pg_temp.key('{"source": {"git": "https://github.com/a/b", "ref": "v1"}, "stack": "s"}'), pg_temp.key('{"source": {"git": "https://github.com/a/b", "ref": "v2"}, "stack": "s"}'), 'a newer tag works on the same state');
select isnt(pg_temp.key('{"source": {"git": "https://git.acme.io:8443/a/b"}, "stack": "s"}'), pg_temp.key('{"source": {"git": "https://git.acme.io/a/b"}, "stack": "s"}'), 'another port is another host');
select is(pg_temp.key(format('{"source": {"git": %s}, "stack": "s"}', to_json(address))), null, 'names no repository: ' || address)
from unnest(array['', 'git@github.com:a/b', 'https://github.com', 'https://github.com/', 'https://github.com/.git', 'https://github.com/a/b?x=1', 'file:///etc']) as address;

-- Queue three of one stack, one of another, one without a stack.
call pg_temp.act_as('alice');
select is(pg_temp.try($$insert into deployments (id, cluster_id, config_snapshot) select pg_temp.id('d' || n), pg_temp.id('c1'), '{"template": "hello", "stack": "prod", "action": "apply"}' from generate_series(1, 3) as n$$), 'rows: 3', 'three of a stack');
select is(pg_temp.try($$insert into deployments (id, cluster_id, config_snapshot) values (pg_temp.id('d4'), pg_temp.id('c1'), '{"template": "hello", "stack": "test"}'), (pg_temp.id('d5'), pg_temp.id('c1'), '{"template": "hello"}'), (pg_temp.id('d6'), pg_temp.id('c2'), '{"template": "hello", "stack": "prod"}')$$), 'rows: 3', 'and others');
select is(pg_temp.try($$insert into deployments (cluster_id, config_snapshot, state_key) values (pg_temp.id('c1'), '{"template": "x"}', 'mine')$$), '42501', 'nobody chooses a key');
select is(pg_temp.list('select state_key, template, stack, last_status from stacks where cluster_id = pg_temp.id(''c1'') order by 1'), '(hello.prod,hello,prod,) (hello.test,hello,test,)', 'its stacks are there');
create function pg_temp.claimable() returns text language sql as $$ select pg_temp.list($q$select right(id::text, 2) from claimable_deployments order by queue_order$q$) $$;
create function pg_temp.claim(job text, agent text default 'a') returns text language sql as $$
  select left(pg_temp.error(format('update deployments set status = ''PROCESSING'', claim_token = %L, claimed_by = %L where id = %L and status = ''QUEUED''', pg_temp.id('1' || right(job, 1)), agent, pg_temp.id(job))), 5)
$$;
create function pg_temp.finish(job text, status text, more text default '') returns text language sql as $$
  select pg_temp.try(format('update deployments set status = %L, claim_token = %L %s where id = %L', status, pg_temp.id('1' || right(job, 1)), more, pg_temp.id(job)))
$$;
call pg_temp.act_as('agent c1');
select is(pg_temp.claimable(), '(d1) (d4) (d5)', 'the oldest of each stack may be claimed');
select is(pg_temp.claim('d2'), 'TD006', 'a younger one may not');
select alike(pg_temp.error($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('12') where id = pg_temp.id('d2')$$), '%d2 is not next: deployment % of stack hello.prod is QUEUED', 'and gets what is ahead');
select is(pg_temp.claim('d1'), 'none', 'the oldest may');
select is(pg_temp.claim('d2'), 'TD006', 'while it runs no other may');
select is(pg_temp.claim('d3', 'b'), 'TD006', 'by any agent');
select is(pg_temp.claimable(), '(d4) (d5)', 'its stack offers nothing');
select is(pg_temp.claim('d4'), 'none', 'other stacks run beside it');
select is(pg_temp.claim('d5'), 'none', 'so does a job without a stack');
call pg_temp.act_as('service_role');
select is(pg_temp.claim('d2'), 'TD006', 'service_role is bound too');
select throws_ok($$insert into deployments (id, cluster_id, config_snapshot, status, claim_token, phase) values (pg_temp.id('d9'), pg_temp.id('c1'), '{"template": "hello", "stack": "prod"}', 'PROCESSING', pg_temp.id('99'), 'PLAN')$$, '23505', null, 'by an index, whatever triggers there are');
call pg_temp.act_as('agent c2');
select is(pg_temp.claim('d6'), 'none', 'the same stack of another cluster is another stack');

-- A plan that waits for approval holds its stack; its end or its cancel frees it.
call pg_temp.act_as('agent c1');
call pg_temp.run($$update deployments set phase = 'APPROVAL', claim_token = pg_temp.id('11'), plan_sha256 = repeat('a', 64) where id = pg_temp.id('d1')$$);
select alike(pg_temp.error($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('12') where id = pg_temp.id('d2')$$), '%is PROCESSING in phase APPROVAL', 'a plan that waits holds its stack');
call pg_temp.act_as('alice');
call pg_temp.run($$update deployments set cancel_requested_at = now() where id in (pg_temp.id('d1'), pg_temp.id('d2'))$$);
call pg_temp.act_as('agent c1');
select is(pg_temp.finish('d1', 'CANCELLED'), 'rows: 1', 'its cancel is carried out');
select is(pg_temp.claimable(), '(d3)', 'the next of the stack may be claimed, and no cancelled one is in its way');
select is((select last_status from stacks where state_key = 'hello.prod' and cluster_id = pg_temp.id('c1')), 'CANCELLED', 'the stack shows how its last run ended');
select is(pg_temp.claim('d3'), 'none', 'it is claimed');
select is(pg_temp.finish('d3', 'SUCCESS'), 'rows: 1', 'and succeeds');
select is((select row(last_deployment_id, last_status, last_action, last_success_id, last_success_at)::text from stacks where state_key = 'hello.prod' and cluster_id = pg_temp.id('c1')),
  row(pg_temp.id('d3'), 'SUCCESS', 'apply', pg_temp.id('d3'), now())::text, 'which the stack shows');

-- What the state holds.
select is(pg_temp.try($$select agent_stack_applied(pg_temp.id('d4'), pg_temp.id('14'), 7, 'pg', 'f1')$$), 'rows: 1', 'an agent reports what the state contains');
select is((select row(resources, backend, backend_fingerprint)::text from stacks where state_key = 'hello.test'), '(7,pg,f1)', 'and its stack shows it');
select is(pg_temp.try($$select agent_stack_applied(pg_temp.id('d4'), pg_temp.id('99'), 7)$$), 'TD001', 'not without the claim');
select is(pg_temp.try($$select agent_stack_applied(pg_temp.id('d4'), pg_temp.id('14'), -1)$$), '22023', 'nor less than nothing');
select is(pg_temp.try($$select agent_stack_applied(pg_temp.id('d5'), pg_temp.id('15'), 1)$$), 'rows: 1', 'a job without a stack');
select is((select stack is null from stacks where state_key = pg_temp.id('d5')::text), true, 'has one from then on');
call pg_temp.act_as('agent c2');
select is(pg_temp.try($$select agent_stack_applied(pg_temp.id('d4'), pg_temp.id('14'), 7)$$), 'TD001', 'not by an agent of another cluster');

-- A state that could not be stored.
call pg_temp.act_as('alice');
call pg_temp.run($$insert into deployments (id, cluster_id, config_snapshot) values (pg_temp.id('d7'), pg_temp.id('c1'), '{"template": "hello", "stack": "test"}')$$);
call pg_temp.act_as('agent c1');
select is(pg_temp.finish('d4', 'FAILED', $$, error_code = 'STATE_NOT_STORED', error_message = 'the bucket is gone'$$), 'rows: 1', 'a state is not stored');
select is((select row(state_held_by, state_held_since, state_held_reason)::text from stacks where state_key = 'hello.test'), row('a', now(), 'the bucket is gone')::text, 'its stack is held by who has it');
select is(pg_temp.claim('d7', 'b'), 'TD006', 'another agent does not claim');
select alike(pg_temp.error($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('17'), claimed_by = 'b' where id = pg_temp.id('d7')$$), '%agent a holds the only copy of the state of stack hello.test%', 'and gets the reason');
select is(pg_temp.list($$select state_held_by from claimable_deployments where id = pg_temp.id('d7')$$), '(a)', 'the queue shows who may');
select is(pg_temp.try($$select agent_hold_state('hello.test', 'a', 'still gone')$$), 'rows: 1', 'it reports that again');
select is(pg_temp.list($$select agent_release_state('hello.test', 'b')$$), '(f)', 'another agent does not release it');
select is(pg_temp.list($$select agent_release_state('hello.test', 'a')$$), '(t)', 'it does, once the state is stored');
select is(pg_temp.claim('d7', 'b'), 'none', 'then any agent claims');
select alike(pg_temp.list($$select agent_hold_state('hello.test', 'b', 'backend away')$$), '%""held"": true%', 'an agent may hold a state by itself');
select is(left(pg_temp.error($$select agent_hold_state('nothing.here', 'b', 'x')$$), 5), 'TD008', 'not of a stack that is not there');
select is(pg_temp.try($$select agent_hold_state('hello.test', ' ', 'x')$$), '22023', 'not without a name');
call pg_temp.act_as('agent c2');
select is(left(pg_temp.error($$select agent_hold_state('hello.test', 'b', 'x')$$), 5), 'TD008', 'nor of another cluster');
select is(pg_temp.list($$select agent_release_state('hello.test', 'b')$$), '(f)', 'whose agents release nothing here');

-- Its owner gives it up.
select is(pg_temp.try($$select discard_held_state(pg_temp.id('c1'), 'hello.test', 'hello.test')$$), '42501', 'an agent discards nothing');
call pg_temp.act_as('anon');
select is(pg_temp.try($$select discard_held_state(pg_temp.id('c1'), 'hello.test', 'hello.test')$$), '42501', 'nor does anon');
call pg_temp.act_as('bob');
select is(left(pg_temp.error($$select discard_held_state(pg_temp.id('c1'), 'hello.test', 'hello.test')$$), 5), 'TD008', 'nor another user');
call pg_temp.act_as('alice');
select is(left(pg_temp.error($$select discard_held_state(pg_temp.id('c1'), 'hello.none', 'hello.none')$$), 5), 'TD008', 'a stack that is not there');
select is(left(pg_temp.error($$select discard_held_state(pg_temp.id('c1'), 'hello.prod', 'hello.prod')$$), 5), 'TD010', 'a stack that nobody holds');
select is(left(pg_temp.error($$select discard_held_state(pg_temp.id('c1'), 'hello.test')$$), 5), 'TD010', 'not without its name as confirmation');
select alike(pg_temp.list($$select discard_held_state(pg_temp.id('c1'), 'hello.test', 'hello.test') ->> 'lost'$$), '%Agent b has held the only copy of the state of stack hello.test%', 'she gets what is lost');
select is((select state_held_by from stacks where state_key = 'hello.test'), null, 'nobody holds it');
call pg_temp.act_as('agent c1');
select alike(pg_temp.list(format('select agent_hold_state(%L, %L, %L, %L)', 'hello.test', 'b', 'x', now() - interval '1 hour')), '%""held"": false%', 'the agent gets that it was given up');
select alike(pg_temp.list(format('select agent_hold_state(%L, %L, %L, %L)', 'hello.test', 'b', 'x', now() + interval '1 second')), '%""held"": true%', 'what it could not store since is another state');

-- Who sees.
call pg_temp.act_as('bob');
select is(pg_temp.list('select state_key from stacks'), 'nothing', 'another user sees no stack');
select is(pg_temp.claimable(), 'nothing', 'and nothing to claim');
call pg_temp.act_as('agent c2');
select is(pg_temp.list('select state_key from stacks'), '(hello.prod)', 'an agent sees those of its cluster');
select is(pg_temp.try('update stacks set resources = 1'), '42501', 'and writes none');
call pg_temp.act_as('alice');
select is(pg_temp.try('update stacks set resources = 1'), '42501', 'nor does a user');
select is(pg_temp.try('delete from stacks'), '42501', 'or delete one');
call pg_temp.act_as('anon');
select is(pg_temp.try('select 1 from stacks'), '42501', 'anon sees nothing');

select * from finish();
rollback;
