-- $1 topic, $2 milliseconds since 1970, $3 how many at most
select id, event, payload::text, binary_payload from (
    select id, event, payload, binary_payload, inserted_at from realtime.messages
    where topic = $1 and private and extension = 'broadcast'
        and inserted_at >= to_timestamp($2::bigint / 1000.0) at time zone 'UTC'
    order by inserted_at desc
    limit $3
) newest order by inserted_at
