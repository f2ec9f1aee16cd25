-- Bars: one row per symbol, exchange and interval that has trades.
-- First and last are by the total order within a symbol of an exchange, (timestamp, nanoseconds,
-- partition, offset), as one number: DuckDB compares numbers twice as fast as rows of columns.
-- The grouped ones come from trades alone, or from trades and roll-ups.
-- turnover / volume is rounded half-even in whole numbers, since "/" would be a float.
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
),
divided as (
    select
        *,
        t // nullif(v, 0) - (t % nullif(v, 0) < 0)::int as q,
        t % nullif(v, 0) + (t % nullif(v, 0) < 0)::int * v as r
    from unscaled
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
    ((q + (2 * r > v or (2 * r = v and q % 2 != 0))::int)::decimal(18, 0) * 0.00000001)
        ::decimal(18, 8) as vwap
from divided
qualify $newest is null
    or row_number() over (partition by symbol, exchange order by start desc) <= $newest
order by symbol, exchange, start
