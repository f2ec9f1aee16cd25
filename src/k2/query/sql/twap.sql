-- The time-weighted average price of each interval that has trades, in microseconds: a price holds
-- until the next trade or the end, and from the beginning on where it is the last one before it, of
-- the same exchange date. Trades before what was asked for are read for their price alone.
with trades as (
    select
        symbol,
        exchange,
        exchange_date,
        epoch_us(timestamp) as time_us,
        {price} as price,
        {start} as start,
        greatest({began}, {first}) as began,
        least({finish}, {past}) as finish,
        {first} as first,
        {place} as place
    from {rows}
    join {days} using (exchange, exchange_date)
    where {predicate}
),
beside as (
    select
        *,
        lead(time_us) over neighbour as next_at,
        lag(time_us) over neighbour as last_at,
        lag(price) over neighbour as last_price,
        lag(exchange_date) over neighbour as last_date
    from trades
    window neighbour as (partition by symbol, exchange order by place)
),
held as (
    select
        symbol,
        exchange,
        start,
        price,
        least(coalesce(next_at, finish), finish) - time_us as held,
        coalesce(last_price, 0) as price_before,
        case when last_date = exchange_date and last_at < began then time_us - began else 0 end
            as held_before
    from beside
    where time_us >= first
),
summed as (
    select
        symbol,
        exchange,
        start,
        sum(price * held + price_before * held_before) as paid,
        sum(held + held_before)::hugeint as held
    from held
    group by symbol, exchange, start
)
select symbol, exchange, start, {twap} as twap
from summed
order by symbol, exchange, start
