-- The tables of the recordings.
set client_min_messages=warning;
drop publication if exists supabase_realtime;
drop table if exists public.events, public.rls_rows, public.full_rows, public.rls_full, public.no_grant, public.col_grant, public.no_pk, public.not_published, public."Mixed Case" cascade;
create table public.events (            -- no RLS, replica identity default
  id uuid primary key default gen_random_uuid(),
  cluster_id text, t text, vc varchar(20), j jsonb, js json, ts timestamptz, tsn timestamp, d date, tm time,
  i2 int2, i4 int4, i8 int8, n numeric, f4 float4, f8 float8, b bool,
  ta text[], ia int4[], ja jsonb[], by bytea, iv interval, ip inet, nothing text
);
create table public.rls_rows (          -- RLS: authenticated sees own rows; replica identity default
  id int8 generated always as identity primary key,
  cluster_id text, owner uuid, body text
);
alter table public.rls_rows enable row level security;
create policy own on public.rls_rows for select to authenticated using (owner = auth.uid());
create table public.full_rows (         -- no RLS, replica identity full
  id int8 generated always as identity primary key, cluster_id text, body text, n int4
);
alter table public.full_rows replica identity full;
create table public.rls_full (          -- RLS + replica identity full
  id int8 generated always as identity primary key, cluster_id text, owner uuid, body text
);
alter table public.rls_full replica identity full;
alter table public.rls_full enable row level security;
create policy own on public.rls_full for select to authenticated using (owner = auth.uid());
create table public.no_grant (id int8 generated always as identity primary key, cluster_id text, secret text, body text);
revoke all on public.no_grant from anon, authenticated;
create table public.col_grant (id int8 generated always as identity primary key, cluster_id text, secret text, body text);
create table public.no_pk (cluster_id text, body text);
create table public.not_published (id int8 primary key, cluster_id text);
create table public."Mixed Case" ("Id" int8 generated always as identity primary key, "Cluster Id" text);
grant all on all tables in schema public to postgres, anon, authenticated, service_role;
revoke all on public.no_grant from anon, authenticated;
revoke all on public.col_grant from anon, authenticated;
grant select (id, cluster_id, body) on public.col_grant to authenticated;
grant all on all sequences in schema public to postgres, anon, authenticated, service_role;
create publication supabase_realtime for table public.events, public.rls_rows, public.full_rows, public.rls_full, public.no_grant, public.col_grant, public.no_pk, public."Mixed Case";


-- authorization of private channels
create policy "read private:*" on realtime.messages for select to authenticated
  using (realtime.topic() like 'private:%');
create policy "write private:rw*" on realtime.messages for insert to authenticated
  with check (realtime.topic() like 'private:rw%');
create policy "owner topics" on realtime.messages for select to authenticated
  using (realtime.topic() = 'user:' || (auth.jwt() ->> 'sub'));
