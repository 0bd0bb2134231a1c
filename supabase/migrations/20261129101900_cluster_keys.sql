-- API keys of clusters: the one secret that a platform engineer gives to an agent.
--
--     tdl_<22 digits: the cluster's id><43 digits: 32 random bytes>       (digits are base62: 0-9 A-Z a-z)
--
-- The key contains the id of its cluster, so nothing else is needed to enrol. It has 256 random bits, so a plain SHA-256 of
-- it can be stored: nobody guesses it, with or without the hash. It is shown once, when it is made.
--
-- The Edge Function agent-token exchanges keys for short JWTs. It gives the key's hash, never the key, to the database.
--
-- Errors: TD004 the cluster was revoked; TD008 no such cluster of yours; TD007 not in this state of its keys.

-- What is known of a key. Belongs to the hash, so that it cannot be mistaken for the next key's.
create table tendril.cluster_keys (
  cluster_id uuid not null references public.clusters (id) on delete cascade,
  key_hash text not null,
  created_at timestamptz,
  last_used_at timestamptz,
  primary key (cluster_id, key_hash)
);
comment on table tendril.cluster_keys is 'When the keys that a cluster has now were made and last exchanged. The hashes of the keys are in clusters.';
comment on column tendril.cluster_keys.created_at is 'Null when an owner wrote the hash into clusters directly.';

-- Exchanges of the minute that began at started_at. Granted ones are counted per cluster. Refused ones fall into 4096 buckets by
-- the cluster that the key names, whether it exists or not: a caller without a key can neither fill the table nor learn what exists, nor
-- lock out an agent with the right key. Unlogged: after a crash of the server the count starts again.
create unlogged table tendril.key_exchanges (
  granted boolean not null,
  bucket uuid not null,
  started_at timestamptz not null default now(),
  exchanges integer not null default 1,
  primary key (granted, bucket)
);
comment on table tendril.key_exchanges is 'How many keys were exchanged and refused in the current minute.';

alter table tendril.cluster_keys enable row level security;
alter table tendril.key_exchanges enable row level security;
revoke all on table tendril.cluster_keys, tendril.key_exchanges from public, anon, authenticated, service_role, tendril_agent;

-- Base62 of fixed width, so that a key's parts need no separator. 22 digits hold 16 bytes, 43 hold 32.
create function tendril.base62(bytes bytea, width integer) returns text
language plpgsql immutable strict set search_path = '' as $$
declare
  digits constant text := '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
  rest numeric := 0;
  written text := '';
begin
  for place in 0 .. length(bytes) - 1 loop
    rest := rest * 256 + get_byte(bytes, place);
  end loop;
  for place in 1 .. width loop
    written := substr(digits, mod(rest, 62)::integer + 1, 1) || written;
    rest := div(rest, 62);
  end loop;
  if rest > 0 then
    raise exception '% bytes do not fit into % digits', length(bytes), width;
  end if;
  return written;
end
$$;
comment on function tendril.base62(bytea, integer) is 'The bytes as one big-endian number in so many digits 0-9A-Za-z.';

-- The randomness comes from gen_random_uuid(), which uses the server's strong generator and, unlike gen_random_bytes(), needs no
-- extension: three of them are 366 random bits, of which SHA-256 makes 256.
create function tendril.new_cluster_key(cluster_id uuid) returns text
language sql volatile strict set search_path = '' as $$
  select 'tdl_' || tendril.base62(uuid_send(cluster_id), 22)
    || tendril.base62(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 43)
$$;
comment on function tendril.new_cluster_key(uuid) is 'A fresh API key of that cluster. Stores nothing.';

create function tendril.key_hash(key text) returns text
language sql immutable strict set search_path = '' as $$
  select encode(sha256(convert_to(key, 'UTF8')), 'hex')
$$;
comment on function tendril.key_hash(text) is 'What is stored of a key.';

-- Compares all 32 bytes wherever the first difference is: the time it takes reveals nothing about the stored hash.
create function tendril.same_hash(stored text, shown text) returns boolean
language sql immutable set search_path = '' as $$
  select stored is not null and bit_or(get_byte(expected.bytes, place) # get_byte(given.bytes, place)) = 0
  from (select decode(coalesce(stored, repeat('0', 64)), 'hex') as bytes) as expected,
    (select decode(shown, 'hex') as bytes) as given,
    generate_series(0, 31) as place
  group by stored
$$;
comment on function tendril.same_hash(text, text) is 'Whether two SHA-256 in hex are the same, in constant time. An absent one is like no other, after the same work.';

create function tendril.own_live_cluster(cluster_id uuid) returns public.clusters
language plpgsql set search_path = '' as $$
declare
  cluster constant public.clusters := tendril.own_cluster(cluster_id);
begin
  if cluster.revoked_at is not null then
    raise exception using
      errcode = 'TD004',
      message = format('cluster %s was revoked at %s', cluster.id, cluster.revoked_at),
      hint = 'Revocation is final. Add a new cluster and make a key for that.';
  end if;
  return cluster;
end
$$;
comment on function tendril.own_live_cluster(uuid) is 'The caller''s cluster, locked. Errors: TD004 revoked, TD008 none.';

-- Writes which keys a cluster has, and deletes the records of its other keys. The record of a key begins when the key is made.
create function tendril.set_cluster_keys(cluster_id uuid, current_hash text, next_hash text) returns void
language sql set search_path = '' as $$
  update public.clusters c set api_key_hash = current_hash, api_key_hash_next = next_hash where c.id = set_cluster_keys.cluster_id;
  delete from tendril.cluster_keys k
  where k.cluster_id = set_cluster_keys.cluster_id
    and k.key_hash is distinct from current_hash and k.key_hash is distinct from next_hash;
$$;
comment on function tendril.set_cluster_keys(uuid, text, text) is 'Sets both hashes of a cluster.';

create function public.create_cluster_key(cluster_id uuid) returns text
language plpgsql security definer set search_path = '' as $$
declare
  cluster constant public.clusters := tendril.own_live_cluster(cluster_id);
  key constant text := tendril.new_cluster_key(cluster.id);
begin
  if cluster.api_key_hash is not null then
    raise exception using
      errcode = 'TD007',
      message = format('cluster %s has a key already', cluster.id),
      hint = 'Change it with rotate_cluster_key, or take it away with revoke_cluster_key first.';
  end if;
  perform tendril.set_cluster_keys(cluster.id, tendril.key_hash(key), cluster.api_key_hash_next);
  insert into tendril.cluster_keys (cluster_id, key_hash, created_at) values (cluster.id, tendril.key_hash(key), now());
  return key;
end
$$;
comment on function public.create_cluster_key(uuid) is 'Makes the API key of a cluster that has none and returns it. It is shown this once; only its SHA-256 is stored. For the owner.';

create function public.rotate_cluster_key(cluster_id uuid) returns text
language plpgsql security definer set search_path = '' as $$
declare
  cluster constant public.clusters := tendril.own_live_cluster(cluster_id);
  key constant text := tendril.new_cluster_key(cluster.id);
begin
  if cluster.api_key_hash is null then
    raise exception using
      errcode = 'TD007',
      message = format('cluster %s has no key yet', cluster.id),
      hint = 'Make its first one with create_cluster_key.';
  end if;
  perform tendril.set_cluster_keys(cluster.id, cluster.api_key_hash, tendril.key_hash(key));
  insert into tendril.cluster_keys (cluster_id, key_hash, created_at) values (cluster.id, tendril.key_hash(key), now());
  return key;
end
$$;
comment on function public.rotate_cluster_key(uuid) is 'Makes a next API key beside the current one and returns it, once; both work until promote_cluster_key. A next key that was there is replaced. For the owner.';

create function public.promote_cluster_key(cluster_id uuid, unused boolean default false) returns void
language plpgsql security definer set search_path = '' as $$
declare
  cluster constant public.clusters := tendril.own_live_cluster(cluster_id);
begin
  if cluster.api_key_hash_next is null then
    raise exception using
      errcode = 'TD007',
      message = format('cluster %s has no next key', cluster.id),
      hint = 'Make one with rotate_cluster_key, give it to the agent, then promote it.';
  elsif not coalesce(unused, false) and not exists (
    select from tendril.cluster_keys k
    where k.cluster_id = cluster.id and k.key_hash = cluster.api_key_hash_next and k.last_used_at is not null
  ) then
    raise exception using
      errcode = 'TD007',
      message = format('the next key of cluster %s was never used: promoting it would lock the agent out', cluster.id),
      hint = 'Give it to the agent first. To promote it all the same, pass unused => true.';
  end if;
  perform tendril.set_cluster_keys(cluster.id, cluster.api_key_hash_next, null);
end
$$;
comment on function public.promote_cluster_key(uuid, boolean) is 'Ends a rotation: the next key becomes the only one. Refused while no agent has used it, unless unused is true. For the owner.';

create function public.revoke_cluster_key(cluster_id uuid) returns void
language plpgsql security definer set search_path = '' as $$
declare
  cluster constant public.clusters := tendril.own_live_cluster(cluster_id);
begin
  perform tendril.set_cluster_keys(cluster.id, null, null);
end
$$;
comment on function public.revoke_cluster_key(uuid) is 'Takes both keys away. A JWT that was exchanged before lives on, at most 15 min; to lock the agent out at once set clusters.revoked_at. For the owner.';

create function public.cluster_key_status(cluster_id uuid) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  cluster public.clusters;
begin
  select * into cluster from public.clusters c
  where c.id = cluster_key_status.cluster_id and c.user_id = (select auth.uid());
  if not found then
    raise exception using
      errcode = 'TD008',
      message = format('there is no cluster %s of yours', coalesce(cluster_id::text, 'null')),
      hint = 'Give the id of a cluster that you own, as its owner.';
  end if;
  return (
    select jsonb_object_agg(kind, case when h is not null then
      jsonb_build_object('created_at', k.created_at, 'last_used_at', k.last_used_at) end)
    from (values ('current', cluster.api_key_hash), ('next', cluster.api_key_hash_next)) as keys (kind, h)
    left join tendril.cluster_keys k on k.cluster_id = cluster.id and k.key_hash = h
  );
end
$$;
comment on function public.cluster_key_status(uuid) is 'Which keys a cluster has: {"current": {"created_at", "last_used_at"}, "next": null}. Times are null when not known: a hash that was set directly, a key not used yet. For the owner.';

-- Counts one exchange of this minute; answers how many seconds to wait when there were too many, otherwise 0.
create function tendril.count_exchange(granted boolean, bucket uuid) returns integer
language sql volatile set search_path = '' as $$
  insert into tendril.key_exchanges as e (granted, bucket) values (count_exchange.granted, count_exchange.bucket)
  on conflict on constraint key_exchanges_pkey do update set
    exchanges = case when e.started_at > now() - interval '1 minute' then least(e.exchanges + 1, 1000000) else 1 end,
    started_at = case when e.started_at > now() - interval '1 minute' then e.started_at else now() end
  returning case when exchanges > 60
    then greatest(1, ceil(extract(epoch from started_at + interval '1 minute' - now())))::integer
    else 0 end
$$;
comment on function tendril.count_exchange(boolean, uuid) is 'Seconds to wait before the next exchange: 0 for the first 60 of a minute.';

-- Never raises for a bad key: an error would undo the count.
create function public.exchange_cluster_key(cluster_id uuid, key_hash text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  -- What is no hash is compared too, as one that no key has.
  shown constant text := case when key_hash ~ '^[0-9a-f]{64}$' then key_hash else repeat('0', 64) end;
  cluster public.clusters;
  granted boolean;
  wait integer;
begin
  select * into cluster from public.clusters c where c.id = exchange_cluster_key.cluster_id;
  -- Both, always: whether there is a cluster, a key or a next key does not show in the time.
  granted := tendril.same_hash(cluster.api_key_hash, shown)::integer + tendril.same_hash(cluster.api_key_hash_next, shown)::integer > 0;

  wait := tendril.count_exchange(granted, case when granted then cluster.id
    else lpad(left(md5(coalesce(exchange_cluster_key.cluster_id::text, '')), 3), 32, '0')::uuid end);
  if wait > 0 then
    return jsonb_build_object('result', 'limited', 'retry_after', wait);
  elsif not granted then
    return jsonb_build_object('result', 'refused');
  elsif cluster.revoked_at is not null then
    return jsonb_build_object('result', 'revoked');
  end if;

  insert into tendril.cluster_keys as k (cluster_id, key_hash, last_used_at) values (cluster.id, shown, now())
  on conflict on constraint cluster_keys_pkey do update set last_used_at = now();
  return jsonb_build_object('result', 'granted', 'cluster_id', cluster.id);
end
$$;
comment on function public.exchange_cluster_key(uuid, text) is 'Whether a key with this SHA-256 opens the cluster: {"result": "granted" | "refused" | "revoked" | "limited"}. An unknown cluster and a wrong key are both "refused". For the Edge Function agent-token.';

revoke all on function
  tendril.base62(bytea, integer), tendril.new_cluster_key(uuid), tendril.key_hash(text), tendril.same_hash(text, text),
  tendril.own_live_cluster(uuid), tendril.set_cluster_keys(uuid, text, text), tendril.count_exchange(boolean, uuid),
  public.create_cluster_key(uuid), public.rotate_cluster_key(uuid), public.promote_cluster_key(uuid, boolean),
  public.revoke_cluster_key(uuid), public.cluster_key_status(uuid), public.exchange_cluster_key(uuid, text)
  from public, anon, authenticated, service_role, tendril_agent;
grant execute on function
  public.create_cluster_key(uuid), public.rotate_cluster_key(uuid), public.promote_cluster_key(uuid, boolean),
  public.revoke_cluster_key(uuid), public.cluster_key_status(uuid)
  to authenticated;
grant execute on function public.exchange_cluster_key(uuid, text) to service_role;
