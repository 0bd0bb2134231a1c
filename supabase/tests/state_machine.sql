-- Which changes of a deployment are legal, for every pair of statuses and every role.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(89);

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

-- One deployment per status, made through the legal path; d4 is FAILED by its agent, d5 by the reaper (AGENT_LOST).
insert into deployments (id, cluster_id, config_snapshot)
select pg_temp.id('d' || n), pg_temp.id('c1'), '{"template": "hello"}' from unnest(string_to_array('0123456789a', null)) as n;
call pg_temp.act_as('agent c1');
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('1' || right(id::text, 1)) where id between pg_temp.id('d1') and pg_temp.id('d5')$$);
call pg_temp.run($$update deployments set status = 'SUCCESS', claim_token = pg_temp.id('12'), log_count = 5 where id = pg_temp.id('d2')$$);
call pg_temp.run($$update deployments set status = 'CANCELLED', claim_token = pg_temp.id('13') where id = pg_temp.id('d3')$$);
call pg_temp.run($$update deployments set status = 'FAILED', claim_token = pg_temp.id('14'), error_code = 'TERRAFORM_FAILED' where id = pg_temp.id('d4')$$);
call pg_temp.run($$update deployments set status = 'FAILED', claim_token = pg_temp.id('15'), error_code = 'AGENT_LOST' where id = pg_temp.id('d5')$$);
create function pg_temp.go(short text, target text, token text default null) returns text language sql as $$
  select pg_temp.try(format('update deployments set status = %L%s where id = pg_temp.id(%L)', target,
    case when token = 'null' then ', claim_token = null' when token is not null then format(', claim_token = pg_temp.id(%L)', token) else '' end, short))
$$;
create function pg_temp.shows(short text, columns text) returns text language plpgsql as $$
declare
  found text;
begin
  execute format('select row(%s)::text from public.deployments where id = pg_temp.id(%L)', columns, short) into found;
  return found;
end
$$;

-- QUEUED.
select is(pg_temp.go('d0', 'PROCESSING'), 'TD001', 'a claim without a token is refused');
select is(pg_temp.go('d0', 'PROCESSING', 'null'), 'TD001', 'a claim with a null token is refused');
select is(pg_temp.go('d0', 'SUCCESS'), 'TD002', 'QUEUED -> SUCCESS is refused');
select is(pg_temp.go('d0', 'FAILED'), 'TD002', 'QUEUED -> FAILED is refused');
select is(pg_temp.go('d0', 'SUCCESS', '10'), 'TD001', 'an agent whose claim is over cannot end a queued job');
select is(pg_temp.go('d0', 'CANCELLED', '10'), 'TD001', 'nor cancel it');
select is(pg_temp.go('d0', 'QUEUED', '10'), 'TD001', 'a token alone is no claim');
select is(pg_temp.try($$update deployments set phase = 'APPLY' where id = pg_temp.id('d0')$$), 'TD002', 'a queued deployment has no progress');
select is(pg_temp.try($$update deployments set error_message = 'x' where id = pg_temp.id('d0')$$), 'TD002', 'nor results');
select is(pg_temp.go('d9', 'CANCELLED'), 'rows: 1', 'QUEUED -> CANCELLED');
select is(pg_temp.shows('d9', 'status, error_code, finished_at, claim_token'), row('CANCELLED', 'CANCELLED', now(), null)::text, 'with a reason and an end');
select is(pg_temp.go('d9', 'PROCESSING', '19'), 'TD001', 'a cancelled deployment cannot be claimed');

-- PROCESSING: the token.
select is(pg_temp.go('d1', 'SUCCESS'), 'TD001', 'an end without a token is refused');
select is(pg_temp.go('d1', 'SUCCESS', '99'), 'TD001', 'an end with another token is refused');
select is(pg_temp.go('d1', 'SUCCESS', 'null'), 'TD001', 'an end with a null token is refused');
select is(pg_temp.go('d1', 'PROCESSING', '99'), 'TD001', 'a second claim is refused');
select is(pg_temp.go('d1', 'PROCESSING', 'null'), 'TD001', 'a claim cannot be dropped');
select is(pg_temp.try($$update deployments set phase = 'INIT' where id = pg_temp.id('d1')$$), 'TD001', 'progress without a token is refused');
select is(pg_temp.try($$update deployments set log_count = 9 where id = pg_temp.id('d1')$$), 'TD001', 'so are results');
select is(pg_temp.try($$update deployments set phase = 'INIT', claim_token = pg_temp.id('99') where id = pg_temp.id('d1')$$), 'TD001', 'progress with another token is refused');
select is(pg_temp.try($$update deployments set phase = 'INIT', claim_token = pg_temp.id('11') where id = pg_temp.id('d1')$$), 'rows: 1', 'progress with the token');
select is(pg_temp.try($$update deployments set phase = 'COST' where id = pg_temp.id('d1')$$), 'TD001', 'a token counts for one statement only');
select is(pg_temp.go('d1', 'QUEUED', '11'), 'TD002', 'an agent cannot queue its job again');
select is(pg_temp.go('d1', 'QUEUED', 'null'), 'TD001', 'not by dropping the token either');
select is(pg_temp.go('d1', 'QUEUED'), 'TD001', 'nor without one');

-- PROCESSING: phases and leases.
select is(pg_temp.shows('d1', 'phase, tendril.lease_length(phase), tendril.silence(deployments)'), row('INIT', interval '60 seconds', interval '0')::text, 'before apply the lease is a minute');
select is(pg_temp.try($$update deployments set phase = null, claim_token = pg_temp.id('11') where id = pg_temp.id('d1')$$), 'rows: 1', 'no phase means the same phase');
select is(pg_temp.shows('d1', 'phase'), '(INIT)', 'a claimed job always has a phase');
select is(pg_temp.try($$update deployments set phase = 'PLAN', claim_token = pg_temp.id('11') where id = pg_temp.id('d1')$$), 'rows: 1', 'forward before apply');
select is(pg_temp.try($$update deployments set phase = 'INIT', claim_token = pg_temp.id('11') where id = pg_temp.id('d1')$$), 'rows: 1', 'and back before apply');
select is(pg_temp.try($$update deployments set phase = 'APPLY', claim_token = pg_temp.id('11') where id = pg_temp.id('d1')$$), 'rows: 1', 'apply begins');
select is(pg_temp.shows('d1', 'phase, tendril.lease_length(phase)'), row('APPLY', interval '10 minutes')::text, 'from apply on the lease is ten minutes');
select is(pg_temp.try($$update deployments set phase = 'PLAN', claim_token = pg_temp.id('11') where id = pg_temp.id('d1')$$), 'TD002', 'there is no way back before apply');
select is(pg_temp.try($$update deployments set phase = 'OUTPUT', claim_token = pg_temp.id('11') where id = pg_temp.id('d1')$$), 'rows: 1', 'after apply come the outputs');
select is(pg_temp.shows('d1', 'tendril.lease_length(phase)'), row(interval '10 minutes')::text, 'with the long lease');
select is((select array_agg(phase order by phase) from unnest(array['CLAIMED','WORKSPACE','COST','INIT','PLAN','APPROVAL','APPLY','DESTROY','OUTPUT','REPORT','UNKNOWN']) as phase where tendril.apply_began(phase)),
  array['APPLY','DESTROY','OUTPUT','REPORT','UNKNOWN'], 'the phases of which apply_began is true');
select is(tendril.apply_began(null), false, 'no phase: apply did not begin');

-- PROCESSING: the end. (d2, d3, d4 went there above.)
select is(pg_temp.shows('d2', 'status, finished_at, (select last_heartbeat_at from tendril.leases where deployment_id = deployments.id), claim_token, log_count, error_code'), row('SUCCESS', now(), null, pg_temp.id('12'), 5, null)::text, 'SUCCESS is stamped and keeps its token');
select is(pg_temp.shows('d3', 'status, finished_at, (select last_heartbeat_at from tendril.leases where deployment_id = deployments.id)'), row('CANCELLED', now(), null)::text, 'CANCELLED is stamped');
select is(pg_temp.shows('d4', 'status, finished_at, (select last_heartbeat_at from tendril.leases where deployment_id = deployments.id), error_code'), row('FAILED', now(), null, 'TERRAFORM_FAILED')::text, 'FAILED is stamped and keeps its reason');
select is(pg_temp.try($$update deployments set status = 'FAILED', error_message = repeat('x', 100000), claim_token = pg_temp.id('11') where id = pg_temp.id('d1')$$), 'rows: 1', 'an end is not refused for a long message');
select is(pg_temp.shows('d1', 'length(error_message)'), '(8192)', 'the message is cut');

-- Finished.
select is(pg_temp.try($$update deployments set status = 'SUCCESS', log_count = 6, claim_token = pg_temp.id('12') where id = pg_temp.id('d2')$$), 'rows: 1', 'the same end twice is accepted');
select is(pg_temp.shows('d2', 'log_count'), '(5)', 'and changes nothing');
select is(pg_temp.go('d2', 'SUCCESS'), 'rows: 1', 'a status set to what it is changes nothing');
select is(pg_temp.go('d2', 'SUCCESS', '99'), 'TD001', 'the same end with another token is refused');
select is(pg_temp.go('d2', 'SUCCESS', 'null'), 'TD001', 'or with a null token');
select is(pg_temp.try($$update deployments set log_count = 6 where id = pg_temp.id('d2')$$), 'TD001', 'results of a finished job do not change');
select is(pg_temp.go('d2', 'FAILED', '12'), 'TD002', 'SUCCESS -> FAILED is refused');
select is(pg_temp.go('d2', 'CANCELLED', '12'), 'TD002', 'SUCCESS -> CANCELLED is refused');
select is(pg_temp.go('d2', 'PROCESSING', '12'), 'TD002', 'SUCCESS -> PROCESSING is refused');
select is(pg_temp.go('d2', 'QUEUED', '12'), 'TD002', 'SUCCESS -> QUEUED is refused');
select is(pg_temp.go('d3', 'SUCCESS', '13'), 'TD002', 'CANCELLED -> SUCCESS is refused');
select is(pg_temp.go('d3', 'PROCESSING', '98'), 'TD001', 'CANCELLED -> PROCESSING is refused');
select is(pg_temp.go('d4', 'SUCCESS', '14'), 'TD002', 'FAILED -> SUCCESS is refused');
select is(pg_temp.go('d4', 'QUEUED', '14'), 'TD002', 'FAILED -> QUEUED is refused');

-- The late, true result.
select is(pg_temp.go('d5', 'SUCCESS', '99'), 'TD001', 'AGENT_LOST gives way to no other token');
select is(pg_temp.go('d5', 'SUCCESS'), 'TD002', 'nor to none');
select is(pg_temp.go('d5', 'PROCESSING', '15'), 'TD002', 'nor does the job go on');
select is(pg_temp.go('d5', 'SUCCESS', '15'), 'rows: 1', 'AGENT_LOST -> SUCCESS with the claim''s token');
select is(pg_temp.shows('d5', 'status, error_code, error_message'), '(SUCCESS,,)', 'the error is gone');
select is(pg_temp.go('d5', 'FAILED', '15'), 'TD002', 'and that is final');

-- Why a run was asked to stop is known later.
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('1a') where id = pg_temp.id('da')$$);
call pg_temp.run($$update deployments set status = 'FAILED', error_code = 'AGENT_STOPPED', error_message = 'stopped', log_count = 3, claim_token = pg_temp.id('1a') where id = pg_temp.id('da')$$);
select is(pg_temp.try($$update deployments set error_code = 'TIMED_OUT', error_message = 'late', claim_token = pg_temp.id('99') where id = pg_temp.id('da')$$), 'TD001', 'another token does not say why');
select is(pg_temp.try($$update deployments set status = 'FAILED', error_code = 'TERRAFORM_FAILED', error_message = 'else', claim_token = pg_temp.id('1a') where id = pg_temp.id('da')$$), 'rows: 1', 'what is no reason for a stop');
select is(pg_temp.shows('da', 'error_code, error_message'), '(AGENT_STOPPED,stopped)', 'changes nothing');
select is(pg_temp.try($$update deployments set status = 'FAILED', error_code = 'TIMED_OUT', error_message = 'deadline', log_count = 9, claim_token = pg_temp.id('1a') where id = pg_temp.id('da')$$), 'rows: 1', 'its own token does');
select is(pg_temp.shows('da', 'status, error_code, error_message, log_count'), '(FAILED,TIMED_OUT,deadline,3)', 'and nothing else changes');
select is(pg_temp.try($$update deployments set status = 'FAILED', error_code = 'DISK_FULL', error_message = 'again', claim_token = pg_temp.id('1a') where id = pg_temp.id('da')$$), 'rows: 1', 'said twice it changes nothing');

-- What was ended before its apply began does not begin it.
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('18') where id = pg_temp.id('d8')$$);
call pg_temp.run($$update deployments set status = 'FAILED', error_code = 'AGENT_LOST', claim_token = pg_temp.id('18') where id = pg_temp.id('d8')$$);
select is(pg_temp.try($$update deployments set phase = 'APPLY', claim_token = pg_temp.id('18') where id = pg_temp.id('d8')$$), 'TD002', 'an agent that was given up does not begin to apply');
select is(pg_temp.try($$update deployments set phase = 'APPLY', claim_token = pg_temp.id('13') where id = pg_temp.id('d3')$$), 'TD002', 'nor one whose job was cancelled');
select is(pg_temp.try($$update deployments set phase = 'CLAIMED', claim_token = pg_temp.id('13') where id = pg_temp.id('d3')$$), 'rows: 1', 'what the row has already may be written again');
select is(pg_temp.shows('d8', 'status, phase'), '(FAILED,CLAIMED)', 'the row shows that nothing was changed');
select is(pg_temp.go('d8', 'CANCELLED', '18'), 'rows: 1', 'its true end is welcome');

-- A user's cancel.
call pg_temp.run($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('16') where id = pg_temp.id('d6')$$);
call pg_temp.act_as('alice');
select is(pg_temp.try($$update deployments set cancel_requested_at = '2001-01-01' where id = pg_temp.id('d6')$$), 'rows: 1', 'a user requests the cancel of a running job');
select is(pg_temp.shows('d6', 'status, cancel_requested_at'), row('PROCESSING', now())::text, 'the agent ends it, the database sets the time of the request');
call pg_temp.run($$update deployments set cancel_requested_at = null where id = pg_temp.id('d6')$$);
select is(pg_temp.shows('d6', 'cancel_requested_at'), row(now())::text, 'it cannot be taken back');
select is(pg_temp.try($$update deployments set cancel_requested_at = now() where id = pg_temp.id('d2')$$), 'rows: 1', 'a cancel that comes too late is no error');
select is(pg_temp.shows('d2', 'status, cancel_requested_at'), '(SUCCESS,)', 'and changes nothing');

-- The other roles are bound too.
call pg_temp.act_as('service_role');
select is(pg_temp.go('d6', 'SUCCESS'), 'TD002', 'service_role ends no running job');
select is(pg_temp.go('d6', 'QUEUED'), 'TD002', 'service_role queues no running job again');
select is(pg_temp.go('d2', 'QUEUED'), 'TD002', 'service_role re-opens no finished job');
select is(pg_temp.try($$update deployments set config_snapshot = '{"template": "other"}' where id = pg_temp.id('d7')$$), 'TD002', 'service_role does not change what was queued');
select is(pg_temp.try($$update deployments set cluster_id = pg_temp.id('c3') where id = pg_temp.id('d7')$$), 'TD002', 'service_role moves no deployment');
select is(pg_temp.try($$insert into deployments (cluster_id, config_snapshot, status) values (pg_temp.id('c1'), '{"template": "x"}', 'PROCESSING')$$), '23514', 'a row that claims to be PROCESSING has a claim');
select is(pg_temp.try($$update deployments set status = 'PROCESSING', claim_token = pg_temp.id('17'), attempt = 9, claimed_at = '2001-01-01' where id = pg_temp.id('d7')$$), 'rows: 1', 'service_role claims like an agent');
select is(pg_temp.shows('d7', 'attempt, claimed_at, (select last_heartbeat_at from tendril.leases where deployment_id = deployments.id)'), row(1, now(), now())::text, 'stamped by the database all the same');
call pg_temp.act_as('owner');
select is(pg_temp.go('d7', 'SUCCESS'), 'TD002', 'the owner of the table is bound too');

-- The messages of refusals.
select throws_like($$update deployments set status = 'SUCCESS', claim_token = null where id = pg_temp.id('d2')$$, '%changed only with its claim_token%', 'TD001 names what is missing');
select throws_like($$update deployments set status = 'QUEUED' where id = pg_temp.id('d2')$$, '%cannot go from SUCCESS to QUEUED%', 'TD002 names the change');

select * from finish();
rollback;
