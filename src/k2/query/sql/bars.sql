-- Bars: one row per symbol, exchange and interval (or other key) that has trades.
-- First and last are by the total order within a symbol of an exchange, (timestamp, nanoseconds,
-- partition, offset), as one number: DuckDB compares numbers twice as fast as rows of columns.
-- The grouped ones come from trades alone, or from trades and roll-ups.
with grouped as (
    {grouped}
),
unscaled as (
    select
        *,
        floor(turnover)::hugeint * 10000000000000000
            + ((turnover - floor(turnover))::decimal(17, 16) * 10000000000000000)::hugeint as t,
        floor(volume)::hugeint * 100000000
            + ((volume - floor(volume))::decimal(9, 8) * 100000000)::hugeint as v
    from grouped
)
select
    symbol,
    exchange,
    start,
    open,
    high,
    low,
    close,
    volume::decimal(38, 8) as volume,
    trade_count,
    {vwap} as vwap
    {shown}
from unscaled
where {kept}
qualify $newest is null
    or row_number() over (partition by symbol, exchange order by {backwards}) <= $newest
order by symbol, exchange, {order}
