-- Live changes: the tables are published, and each change can be checked against its subscriber.
begin;
create schema if not exists extensions;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(17);

select ok(exists (select from pg_publication_tables where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = t), t || ' is published')
from unnest(array['clusters', 'deployments', 'deployment_logs', 'deployment_changes', 'stacks', 'cluster_templates']) as t;
-- With row level security the old row of a change holds the primary key only, whatever the identity; FULL would only cost.
select is((select relreplident from pg_class where oid = ('public.' || t)::regclass)::text, 'd', t || ' is identified by its primary key')
from unnest(array['clusters', 'deployments', 'deployment_logs', 'deployment_changes', 'stacks', 'cluster_templates']) as t;
-- What each heartbeat changes is not published.
select ok(not exists (select from pg_publication_tables where pubname = 'supabase_realtime' and tablename = t), t || ' is not published')
from unnest(array['agents', 'leases', 'reaper', 'broadcast_requests']) as t;
select is((select row(pubinsert, pubupdate, pubdelete)::text from pg_publication where pubname = 'supabase_realtime'), '(t,t,t)', 'inserts, updates and deletes are published');

select * from finish();
rollback;
