-- The whole of what each role was granted, column by column, and the list of policies: nothing more, nothing less.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(63);

create function pg_temp.columns(relation text, role text, privilege text) returns text language sql as $$
  select coalesce(string_agg(attname, ' ' order by attnum), 'none') from pg_attribute
  where attrelid = ('public.' || relation)::regclass and attnum > 0 and not attisdropped
    and has_column_privilege(role, attrelid, attnum, privilege)
$$;

-- clusters
select is(pg_temp.columns('clusters', 'authenticated', 'SELECT'), 'id user_id name status agent_version retention_days revoked_at created_at', 'clusters: what a user reads');
select is(pg_temp.columns('clusters', 'authenticated', 'INSERT'), 'id user_id name api_key_hash api_key_hash_next retention_days', 'clusters: what a user inserts');
select is(pg_temp.columns('clusters', 'authenticated', 'UPDATE'), 'name api_key_hash api_key_hash_next retention_days revoked_at', 'clusters: what a user updates');
select is(pg_temp.columns('clusters', 'tendril_agent', 'SELECT'), 'id name status agent_version retention_days revoked_at created_at', 'clusters: what an agent reads');
select is(pg_temp.columns('clusters', 'tendril_agent', 'INSERT'), 'none', 'clusters: an agent inserts nothing');
select is(pg_temp.columns('clusters', 'tendril_agent', 'UPDATE'), 'none', 'clusters: an agent updates nothing');
select is(pg_temp.columns('clusters', 'anon', p), 'none', 'clusters: anon has no ' || p) from unnest(array['SELECT', 'INSERT', 'UPDATE']) as p;

-- deployments
select is(pg_temp.columns('deployments', 'authenticated', 'SELECT'),
  'id cluster_id config_snapshot state_key queue_order status phase attempt claimed_by claimed_at queue_expires_at cancel_requested_at cancelled_by cancel_comment created_at started_at finished_at template_commit terraform_version plan_summary plan_sha256 approval_expires_at approved_plan approved_at approved_by approval_comment applied cost cost_status outputs log_count error_code error_message',
  'deployments: a user reads everything but the claim token');
select is(pg_temp.columns('deployments', 'authenticated', 'INSERT'), 'id cluster_id config_snapshot status', 'deployments: what a user inserts');
select is(pg_temp.columns('deployments', 'authenticated', 'UPDATE'), 'cancel_requested_at cancel_comment approved_plan approval_comment', 'deployments: what a user updates');
select is(pg_temp.columns('deployments', 'tendril_agent', 'SELECT'),
  'id cluster_id config_snapshot state_key queue_order status phase attempt claim_token claimed_by claimed_at queue_expires_at cancel_requested_at cancelled_by cancel_comment created_at started_at finished_at template_commit terraform_version plan_summary plan_sha256 approval_expires_at approved_plan approved_at approved_by approval_comment applied cost cost_status outputs log_count error_code error_message',
  'deployments: an agent reads all');
select is(pg_temp.columns('deployments', 'tendril_agent', 'INSERT'), 'none', 'deployments: an agent inserts nothing');
select is(pg_temp.columns('deployments', 'tendril_agent', 'UPDATE'),
  'status phase claim_token claimed_by template_commit terraform_version plan_summary plan_sha256 applied cost cost_status outputs log_count error_code error_message', 'deployments: what an agent updates');
select is(pg_temp.columns('deployments', 'anon', p), 'none', 'deployments: anon has no ' || p) from unnest(array['SELECT', 'INSERT', 'UPDATE']) as p;

-- deployment_logs
select is(pg_temp.columns('deployment_logs', 'authenticated', 'SELECT'), 'id deployment_id attempt seq stream log_chunk ts created_at', 'logs: a user reads all');
select is(pg_temp.columns('deployment_logs', 'authenticated', p), 'none', 'logs: a user has no ' || p) from unnest(array['INSERT', 'UPDATE']) as p;
select is(pg_temp.columns('deployment_logs', 'tendril_agent', 'SELECT'), 'deployment_id attempt seq', 'logs: what an agent reads');
select is(pg_temp.columns('deployment_logs', 'tendril_agent', 'INSERT'), 'deployment_id attempt seq stream log_chunk ts', 'logs: what an agent inserts');
select is(pg_temp.columns('deployment_logs', 'tendril_agent', 'UPDATE'), 'none', 'logs: an agent updates nothing');
select is(pg_temp.columns('deployment_logs', 'anon', p), 'none', 'logs: anon has no ' || p) from unnest(array['SELECT', 'INSERT', 'UPDATE']) as p;

-- Whole-table rights.
select is(has_table_privilege(r, 'public.' || t, p), false, format('%s: %s has no %s', t, r, p))
from unnest(array['clusters', 'deployments', 'deployment_logs']) as t, unnest(array['anon', 'authenticated', 'tendril_agent']) as r, unnest(array['DELETE', 'TRUNCATE']) as p;
select table_privs_are('public', 'clusters', 'service_role', array['SELECT', 'INSERT', 'UPDATE', 'DELETE'], 'clusters: service_role');
select table_privs_are('public', 'deployments', 'service_role', array['SELECT', 'INSERT', 'UPDATE', 'DELETE'], 'deployments: service_role');
select table_privs_are('public', 'deployment_logs', 'service_role', array['SELECT', 'INSERT'], 'logs: service_role appends and reads');

-- Functions and schemas.
select is((select string_agg(format('%s(%s)', p.proname, r.rolname), ' ' order by p.proname, r.rolname)
  from pg_proc p, pg_roles r
  where p.proname in ('agent_heartbeat', 'agent_offline', 'reap_lost_agents') and p.pronamespace = 'public'::regnamespace
    and r.rolname in ('anon', 'authenticated', 'service_role', 'tendril_agent') and has_function_privilege(r.oid, p.oid, 'EXECUTE')),
  'agent_heartbeat(service_role) agent_heartbeat(tendril_agent) agent_offline(service_role) agent_offline(tendril_agent) reap_lost_agents(service_role)',
  'who calls which function');
select is((select string_agg(format('%s(%s)', p.proname, r.rolname), ' ' order by p.proname, r.rolname)
  from pg_proc p, pg_roles r
  where p.proname in ('reap', 'require_cluster', 'enforce_state', 'note_claim_token', 'forget_commit', 'keep_revocation', 'claimed_cluster_id', 'agent_cluster_id') and p.pronamespace = 'tendril'::regnamespace
    and r.rolname in ('anon', 'authenticated', 'service_role', 'tendril_agent') and has_function_privilege(r.oid, p.oid, 'EXECUTE')),
  'agent_cluster_id(tendril_agent)', 'of the private rules a role needs one: who am I');
select is(has_schema_privilege('anon', 'tendril', 'USAGE'), false, 'anon cannot look into the private schema');
select is((select bool_or(has_schema_privilege(r, 'tendril', 'CREATE')) from unnest(array['anon', 'authenticated', 'tendril_agent', 'service_role']) as r), false, 'nobody adds rules');
select is((select count(*)::int from pg_proc where prosecdef and pronamespace in ('tendril'::regnamespace, 'public'::regnamespace) and proname ~ '^(agent_|reap_)'
  and not coalesce(proconfig, '{}') @> array['search_path=""']), 0, 'what runs with its owner''s rights has a fixed search path');

-- The role.
select is((select row(rolcanlogin, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolinherit)::text from pg_roles where rolname = 'tendril_agent'), '(f,f,f,f,f,t)', 'tendril_agent is a role of no might');
select ok((select pg_has_role('authenticator', 'tendril_agent', 'MEMBER')), 'the API may become tendril_agent');

-- Row level security.
select is((select bool_and(relrowsecurity) from pg_class where oid in ('clusters'::regclass, 'deployments'::regclass, 'deployment_logs'::regclass)), true, 'row level security is on');
select policies_are('public', 'clusters', array['A user reads own clusters', 'A user adds own clusters', 'A user changes own clusters', 'An agent reads its own cluster']);
select policies_are('public', 'deployments', array['A user reads deployments of own clusters', 'A user queues deployments on own live clusters', 'A user approves and cancels deployments of own clusters',
  'An agent reads deployments of its cluster', 'An agent works on deployments of its cluster']);
select policies_are('public', 'deployment_logs', array['A user reads logs of own deployments', 'An agent sees which chunks of its cluster are stored', 'An agent appends logs to attempts of its cluster']);
select is((select count(*)::int from pg_policies where schemaname = 'public' and tablename in ('clusters', 'deployments', 'deployment_logs')
  and (roles && array['public', 'anon']::name[] or cardinality(roles) <> 1)), 0, 'each policy names its one role');
select is((select count(*)::int from pg_policies where schemaname = 'public' and tablename in ('clusters', 'deployments', 'deployment_logs')
  and coalesce(qual, '') || coalesce(with_check, '') ~ '(?<!SELECT )(auth\.uid|tendril\.agent_cluster_id)\(\)'), 0, 'policies ask who is calling once for each statement');
select has_index('public', 'deployments', 'deployments_queue', array['cluster_id', 'status', 'created_at'], 'the queue is read by an index');
select has_index('public', 'clusters', 'clusters_user_id', array['user_id'], 'a user''s clusters are found by an index');

select * from finish();
rollback;
