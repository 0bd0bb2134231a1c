-- Which migrations were applied, in the Supabase CLI's own table.
create schema if not exists supabase_migrations authorization postgres;
create table if not exists supabase_migrations.schema_migrations (
    version text primary key,
    statements text[],
    name text
);
grant all on supabase_migrations.schema_migrations to postgres;
