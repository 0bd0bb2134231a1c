-- $1 int8[]: the lower 32 bits of transaction ids. Whether those transactions are visible to new snapshots. The upper bits are those
-- that put each nearest to the newest id.
with newest as (
    select pg_current_snapshot() as snapshot, pg_snapshot_xmax(pg_current_snapshot())::pg_catalog.text::pg_catalog.int8 as xmax
)
select coalesce(bool_and(pg_visible_in_snapshot(
    (xmax + (((xid - xmax) & 4294967295) # 2147483648) - 2147483648)::pg_catalog.text::pg_catalog.xid8,
    snapshot
)), true)
from newest, pg_catalog.unnest($1::pg_catalog.int8[]) xid
