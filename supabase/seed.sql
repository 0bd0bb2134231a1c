-- For development only: `supabase db reset` and the local stack run it, a hosted project never does.
-- One user and one cluster, as an example. Nobody can log in as this user or use this cluster's
-- agent: it has no password and no key.

insert into auth.users (id, aud, role, email, raw_app_meta_data, raw_user_meta_data)
values ('5eed0000-0000-4000-8000-000000000001', 'authenticated', 'authenticated', 'demo@tendril.invalid', '{}', '{}')
on conflict do nothing;

insert into public.clusters (id, user_id, name)
values ('5eed0000-0000-4000-8000-00000000000c', '5eed0000-0000-4000-8000-000000000001', 'seed')
on conflict do nothing;
