-- $1 schema, $2 table: names or LIKE patterns, `*` for all. The tables of the publication that they mean.
select c.oid
from pg_catalog.pg_publication_tables p
join pg_catalog.pg_namespace n on n.nspname = p.schemaname
join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
where p.pubname = 'supabase_realtime'
    and ($1::pg_catalog.text = '*' or p.schemaname like $1)
    and ($2::pg_catalog.text = '*' or p.tablename like $2)
