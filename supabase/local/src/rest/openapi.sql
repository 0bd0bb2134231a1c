-- What the OpenAPI document is made of, as one JSON document: the tables and functions that the current role may use.
-- The one name with a colon stands for the schema.
with
space as (select oid, nspname from pg_catalog.pg_namespace where nspname = :schema),
tables as (
  select c.oid, c.relname as name, pg_catalog.obj_description(c.oid, 'pg_class') as description,
    c.relkind in ('r', 'p') or pg_catalog.pg_relation_is_updatable(c.oid, true) & 28 <> 0 as writable,
    coalesce((
      select json_agg(a.attname order by k.pos)
      from pg_catalog.pg_constraint p
      cross join unnest(p.conkey) with ordinality k (num, pos)
      join pg_catalog.pg_attribute a on a.attrelid = p.conrelid and a.attnum = k.num
      where p.conrelid = c.oid and p.contype = 'p'
    ), '[]') as primary_key,
    coalesce((
      select json_agg(json_build_object(
        'name', a.attname,
        'description', pg_catalog.col_description(c.oid, a.attnum),
        'nullable', not (a.attnotnull or (t.typtype = 'd' and t.typnotnull)),
        'type', pg_catalog.format_type(case when t.typtype = 'd' then t.typbasetype else a.atttypid end, null),
        'max_length', case when coalesce(b.typname, t.typname) in ('varchar', 'bpchar') and greatest(a.atttypmod, t.typtypmod) > 4
          then greatest(a.atttypmod, t.typtypmod) - 4 end,
        'default', case when a.attidentity = '' and a.attgenerated = '' then pg_catalog.pg_get_expr(d.adbin, d.adrelid) end,
        'labels', coalesce((
          select json_agg(e.enumlabel order by e.enumsortorder) from pg_catalog.pg_enum e where e.enumtypid in (t.oid, t.typbasetype)
        ), '[]'),
        'foreign_key', (
          select json_build_array(f.relname, fa.attname)
          from pg_catalog.pg_constraint k
          join pg_catalog.pg_class f on f.oid = k.confrelid
          join pg_catalog.pg_attribute fa on fa.attrelid = k.confrelid and fa.attnum = k.confkey[1]
          where k.conrelid = c.oid and k.contype = 'f' and k.conkey = array[a.attnum]
          order by k.conname limit 1
        )
      ) order by a.attnum)
      from pg_catalog.pg_attribute a
      join pg_catalog.pg_type t on t.oid = a.atttypid
      left join pg_catalog.pg_type b on b.oid = t.typbasetype
      left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
      where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    ), '[]') as columns
  from pg_catalog.pg_class c
  join space on space.oid = c.relnamespace
  where c.relkind in ('r', 'v', 'm', 'f', 'p') and not c.relispartition and (
    pg_catalog.pg_has_role(c.relowner, 'USAGE')
    or pg_catalog.has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
    or pg_catalog.has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
  )
),
functions as (
  select p.oid, p.proname as name, pg_catalog.obj_description(p.oid, 'pg_proc') as description, p.provolatile = 'v' as volatile,
    (
      select coalesce(json_agg(json_build_object(
        'name', coalesce(arg.name, ''),
        'type', pg_catalog.format_type(arg.type, null),
        'required', arg.place <= p.pronargs - p.pronargdefaults,
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
  join space on space.oid = p.pronamespace
  join pg_catalog.pg_type t on t.oid = p.prorettype
  where p.prokind = 'f' and t.typname not in ('trigger', 'event_trigger')
    and pg_catalog.has_function_privilege(p.oid, 'execute')
)
select json_build_object(
  'description', (select pg_catalog.obj_description(oid, 'pg_namespace') from space),
  'tables', (select coalesce(json_agg(t order by t.name), '[]') from tables t),
  'functions', (select coalesce(json_agg(f order by f.name, f.oid), '[]') from functions f)
)::text
