-- The schema cache as one JSON document. $1: the exposed schemas, an array literal of text.
with
exposed as (
  select oid, nspname from pg_catalog.pg_namespace where nspname = any ($1::text[])
),
relations as (
  select c.oid, n.nspname as schema, c.relname as name
  from pg_catalog.pg_class c join exposed n on n.oid = c.relnamespace
  where c.relkind in ('r', 'v', 'm', 'f', 'p') and not c.relispartition
),
keys as (
  select con.conrelid, con.contype, con.conname, con.confrelid, con.conkey,
    array(
      select a.attname::text from unnest(con.conkey) with ordinality k (num, pos)
      join pg_catalog.pg_attribute a on a.attrelid = con.conrelid and a.attnum = k.num order by k.pos
    ) as columns,
    array(
      select a.attname::text from unnest(con.confkey) with ordinality k (num, pos)
      join pg_catalog.pg_attribute a on a.attrelid = con.confrelid and a.attnum = k.num order by k.pos
    ) as foreign_columns
  from pg_catalog.pg_constraint con
  where con.contype in ('p', 'u', 'f') and con.conparentid = 0
),
tables as (
  select r.schema, r.name,
    coalesce((select to_json(k.columns) from keys k where k.conrelid = r.oid and k.contype = 'p'), '[]') as primary_key,
    (
      select coalesce(json_agg(json_build_object(
        'name', a.attname,
        'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
        'default', case
          when a.attidentity <> '' then pg_catalog.format(
            'nextval(%L)', pg_catalog.pg_get_serial_sequence(pg_catalog.format('%I.%I', r.schema, r.name), a.attname))
          when a.attgenerated <> '' then null
          else pg_catalog.pg_get_expr(d.adbin, d.adrelid)
        end
      ) order by a.attnum), '[]')
      from pg_catalog.pg_attribute a
      left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
      where a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
    ) as columns
  from relations r
),
foreign_keys as (
  select f.conname as "constraint",
    json_build_object('schema', r.schema, 'name', r.name) as "from",
    json_build_object('schema', t.schema, 'name', t.name) as "to",
    f.columns, f.foreign_columns,
    exists (
      select from keys u where u.conrelid = f.conrelid and u.contype in ('p', 'u')
        and u.conkey <@ f.conkey and u.conkey @> f.conkey
    ) as "unique",
    coalesce((
      select f.conkey <@ p.conkey from keys p where p.conrelid = f.conrelid and p.contype = 'p'
    ), false) as in_primary_key
  from keys f
  join relations r on r.oid = f.conrelid
  join relations t on t.oid = f.confrelid
  where f.contype = 'f'
  order by f.conname
),
functions as (
  select n.nspname as schema, p.proname as name, p.provolatile = 'v' as volatile, p.proretset as "set",
    case
      when t.typname = 'void' and tn.nspname = 'pg_catalog' then 'void'
      when t.typtype = 'c' or (t.typname = 'record' and tn.nspname = 'pg_catalog') then 'composite'
      else 'scalar'
    end as returns,
    (select json_build_object('schema', r.schema, 'name', r.name) from relations r where r.oid = t.typrelid) as "table",
    (
      select coalesce(json_agg(json_build_object(
        'name', coalesce(arg.name, ''),
        'type', pg_catalog.format_type(arg.type, null),
        'optional', arg.place > p.pronargs - p.pronargdefaults,
        'variadic', arg.mode = 'v'
      ) order by arg.place), '[]')
      from (
        select a.name, a.type, coalesce(a.mode, 'i') as mode, row_number() over (order by a.pos) as place
        from unnest(p.proargnames, coalesce(p.proallargtypes, p.proargtypes::oid[]), p.proargmodes)
          with ordinality a (name, type, mode, pos)
        where a.type is not null and coalesce(a.mode, 'i') in ('i', 'b', 'v')
      ) arg
    ) as parameters
  from pg_catalog.pg_proc p
  join exposed n on n.oid = p.pronamespace
  join pg_catalog.pg_type t on t.oid = p.prorettype
  join pg_catalog.pg_namespace tn on tn.oid = t.typnamespace
  where p.prokind = 'f' and t.typname not in ('trigger', 'event_trigger')
),
role_settings as (
  select r.rolname as role, split_part(entry, '=', 1) as name, substr(entry, strpos(entry, '=') + 1) as value
  from pg_catalog.pg_db_role_setting s
  join pg_catalog.pg_roles r on r.oid = s.setrole
  cross join unnest(s.setconfig) entry
  join pg_catalog.pg_settings known on known.name = split_part(entry, '=', 1) and known.context = 'user'
  where s.setdatabase in (0, (select oid from pg_catalog.pg_database where datname = current_database()))
)
select json_build_object(
  'tables', coalesce((select json_agg(t) from tables t), '[]'),
  'foreign_keys', coalesce((select json_agg(f) from foreign_keys f), '[]'),
  'functions', coalesce((select json_agg(f) from functions f), '[]'),
  'role_settings', coalesce((select json_agg(s) from role_settings s), '[]')
)::text
