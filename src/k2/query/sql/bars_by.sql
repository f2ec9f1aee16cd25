-- Bars by another key than the interval of one exchange: one row per symbol, exchange and key.
-- First and last are by the total order; `measured` and `shown` are columns beside.
with grouped as (
    select
        {keys},
        {start} as start,
        arg_min(price, {place}) as open,
        max(price) as high,
        min(price) as low,
        arg_max(price, {place}) as close,
        sum(quantity) as volume,
        count(*) as trade_count,
        sum(price::decimal(28, 8) * quantity) as turnover
        {measured}
    from {rows}
    where {predicate}
    group by all
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
