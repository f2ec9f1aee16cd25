-- Bars, and an empty one for each interval between the first and the last in which nothing traded.
with spans as (
    select
        symbol,
        exchange,
        least(min(start), coalesce($first, min(start))) as first,
        greatest(max(start), coalesce($last, max(start))) as last
    from bars
    group by all
),
missing as (
    select spans.symbol, spans.exchange, grid.start
    from spans
    join grid on grid.exchange = spans.exchange and grid.start between spans.first and spans.last
    anti join bars
        on bars.symbol = spans.symbol and bars.exchange = spans.exchange and bars.start = grid.start
)
select *
from (
    select * from bars
    union all by name
    select *, 0::decimal(38, 8) as volume, 0::bigint as trade_count from missing
)
qualify $newest is null
    or row_number() over (partition by symbol, exchange order by start desc) <= $newest
order by symbol, exchange, start
