-- The roles of a Supabase database. `supabase_admin` is the superuser that runs this.

-- What a project's owner is: mighty, but no superuser.
create role postgres login createdb createrole bypassrls replication;
alter database postgres owner to postgres;

create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;

-- The API logs in as this and becomes one of the three above.
create role authenticator login noinherit;

create role supabase_auth_admin login noinherit createrole;

-- From version 16 on, CREATEROLE alone may not grant roles that somebody else made.
grant anon, authenticated, service_role, authenticator to postgres with admin option;
grant anon, authenticated, service_role to authenticator;
grant supabase_auth_admin to postgres;

-- As hosted: unattended clients must not hang for ever.
alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';

alter role postgres set search_path = "$user", public, extensions;
alter role supabase_admin set search_path = "$user", public, extensions;
