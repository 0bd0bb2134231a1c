-- The schemas of a Supabase database.

alter schema public owner to postgres;
grant usage on schema public to postgres, anon, authenticated, service_role;

create schema extensions authorization postgres;
grant usage on schema extensions to anon, authenticated, service_role;

create schema auth authorization supabase_auth_admin;
grant usage on schema auth to postgres, anon, authenticated, service_role;

-- Broadcast, presence and their policies live here.
create schema realtime;
grant usage on schema realtime to postgres, anon, authenticated, service_role;

-- Empty, and the project's owner decides which tables are in it.
set role postgres;
create publication supabase_realtime;
reset role;

-- Which migrations were applied, in the Supabase CLI's own table.
create schema supabase_migrations authorization postgres;
create table supabase_migrations.schema_migrations (
    version text primary key,
    statements text[],
    name text
);
alter table supabase_migrations.schema_migrations owner to postgres;
