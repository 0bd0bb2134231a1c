-- $1 int8: the lower 32 bits of a transaction id. Whether that transaction is visible to new snapshots. The upper bits
-- are those that put it nearest to the newest id.
with newest as (
    select pg_current_snapshot() as snapshot, pg_snapshot_xmax(pg_current_snapshot())::text::int8 as xmax
)
select pg_visible_in_snapshot(
    (xmax + ((($1 - xmax) & 4294967295) # 2147483648) - 2147483648)::text::xid8,
    snapshot
)
from newest
