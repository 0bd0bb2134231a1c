-- $1 oid of the table, $2 text[] roles; one row per column in the order of the table.
select
    a.attname::text as name,
    t.typname::text as type_name,
    pg_catalog.format_type(a.atttypid, null) as sql_type,
    c.relrowsecurity as row_security,
    coalesce(a.attnum = any (i.indkey), false) as is_key,
    array(
        select coalesce(pg_catalog.has_column_privilege(r.oid, c.oid, a.attnum, 'select'), false)
        from pg_catalog.unnest($2::pg_catalog.text[]) with ordinality as wanted (name, position)
        left join pg_catalog.pg_roles r on r.rolname = wanted.name
        order by wanted.position
    ) as selectable
from pg_catalog.pg_class c
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
join pg_catalog.pg_type t on t.oid = a.atttypid
left join pg_catalog.pg_index i on i.indrelid = c.oid and i.indisprimary
where c.oid = $1
order by a.attnum
