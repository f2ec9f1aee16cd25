-- What stands of each trade that was corrected: the last word on it, and the last price and
-- quantity that it was given.
select
    symbol,
    exchange,
    exchange_date,
    trade_id,
    id_space,
    target_log_id,
    target_partition,
    target_offset,
    arg_max(action, place) as action,
    max(timestamp) as timestamp,
    arg_max(price, place) filter (action = 'CORRECT') as price,
    arg_max(quantity, place) filter (action = 'CORRECT') as quantity,
    count(*) as corrections
from (
    select *, row(timestamp, timestamp_nanos, log_topic, log_partition, log_offset) as place
    from {rows}
)
where {predicate}
group by all
