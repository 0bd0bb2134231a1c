-- What must be known of a database before anything is done with it; one row. $1 the kind of membership by which a role can be taken.
-- Names are looked up in the catalog: a cast to regclass fails where a schema may not be used.
with present as (
    select c.oid, n.oid as schema, n.nspname || '.' || c.relname as name
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname in ('auth', 'realtime', 'supabase_migrations') and c.relkind in ('r', 'p')
), functions as (
    select n.nspname || '.' || p.proname as name
    from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname in ('auth', 'realtime')
)
select
    current_setting('server_version_num')::int / 10000 as version,
    current_setting('server_version') as version_text,
    current_setting('wal_level') as wal_level,
    current_setting('max_wal_senders')::int as wal_senders,
    current_setting('max_replication_slots')::int as slots,
    current_setting('server_encoding') as encoding,
    pg_catalog.pg_is_in_recovery() as replica,
    me.rolsuper as superuser,
    array(
        select nspname::text from pg_catalog.pg_namespace where nspname in ('auth', 'realtime') order by nspname
    ) as schemas,
    array(
        select role from unnest('{anon, authenticated, service_role, authenticator, postgres}'::text[]) role
        where not exists (select from pg_catalog.pg_roles where rolname = role)
    ) as missing_roles,
    array(
        select format('role %I may see every row: alter role %1$I nosuperuser nobypassrls', rolname)
        from pg_catalog.pg_roles where rolname in ('anon', 'authenticated') and (rolsuper or rolbypassrls)
        union all
        select 'role service_role is bound by policies: alter role service_role bypassrls'
        from pg_catalog.pg_roles where rolname = 'service_role' and not rolsuper and not rolbypassrls
    ) as wrong_roles,
    array(
        select 'table ' || wanted from unnest('{auth.users, auth.sessions, auth.refresh_tokens, realtime.messages}'::text[]) wanted
        where not exists (select from present where name = wanted)
        union all
        select 'function ' || wanted || '()' from unnest('{auth.uid, auth.jwt, auth.role, realtime.topic}'::text[]) wanted
        where not exists (select from functions where name = wanted)
        union all
        select 'publication ' || wanted
        from unnest('{supabase_realtime, supabase_realtime_messages_publication}'::text[]) wanted
        where not exists (select from pg_catalog.pg_publication where pubname = wanted)
    ) as missing_objects,
    array(
        select format('it cannot replicate: alter role %I replication', current_user) where not me.rolreplication
        union all
        select format('it is bound by policies: alter role %I bypassrls', current_user) where not me.rolbypassrls
        union all
        select format('it cannot become %I: grant %1$I to %I', rolname, current_user)
        from pg_catalog.pg_roles
        where rolname in ('anon', 'authenticated', 'service_role') and not pg_has_role(oid, $1)
        union all
        select format('it cannot use schema %I: grant usage on schema %1$I to %I', nspname, current_user)
        from pg_catalog.pg_namespace
        where nspname in ('auth', 'realtime', 'supabase_migrations') and not has_schema_privilege(oid, 'usage')
        union all
        select format('it cannot write %s: grant all on %1$s to %I', name, current_user)
        from present
        where name in ('auth.users', 'auth.sessions', 'auth.refresh_tokens', 'realtime.messages', 'supabase_migrations.schema_migrations')
            and not (has_table_privilege(oid, 'select') and has_table_privilege(oid, 'insert') and has_table_privilege(oid, 'update')
                and has_table_privilege(oid, 'delete'))
    ) as missing_rights,
    exists (select from present where name = 'supabase_migrations.schema_migrations') as has_history
from pg_catalog.pg_roles me
where me.rolname = current_user
