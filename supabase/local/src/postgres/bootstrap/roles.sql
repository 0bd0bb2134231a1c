-- The roles of a Supabase database. A superuser runs this. Roles belong to the whole server: those that are there stay as they are.

do $$
declare
    missing record;
begin
    for missing in
        select wanted.* from (values
            -- What a project's owner is: mighty, but no superuser.
            ('postgres', 'login createdb createrole bypassrls replication', '{"search_path = \"$user\", public, extensions"}'::text[]),
            -- As hosted: unattended clients must not hang for ever.
            ('anon', 'nologin noinherit', '{"statement_timeout = ''3s''"}'),
            ('authenticated', 'nologin noinherit', '{"statement_timeout = ''8s''"}'),
            ('service_role', 'nologin noinherit bypassrls', '{}'),
            -- The API logs in as this and becomes one of the three above.
            ('authenticator', 'login noinherit', '{"statement_timeout = ''8s''","lock_timeout = ''8s''"}'),
            ('supabase_auth_admin', 'login noinherit createrole', '{}'),
            ('supabase_realtime_admin', 'nologin noinherit', '{}')
        ) wanted (name, attributes, settings)
        where not exists (select from pg_catalog.pg_roles where rolname = wanted.name)
    loop
        execute format('create role %I %s', missing.name, missing.attributes);
        for i in 1 .. coalesce(array_length(missing.settings, 1), 0) loop
            execute format('alter role %I set %s', missing.name, missing.settings[i]);
        end loop;
    end loop;
end
$$;

-- From version 16 on, CREATEROLE alone may not grant roles that somebody else made.
grant anon, authenticated, service_role, authenticator to postgres with admin option;
grant anon, authenticated, service_role to authenticator;
-- Policies belong to the owner of their table: a project's owner must be able to become it.
grant supabase_auth_admin, supabase_realtime_admin to postgres;

do $$
begin
    execute format('grant create, connect, temporary on database %I to postgres', current_database());
end
$$;
